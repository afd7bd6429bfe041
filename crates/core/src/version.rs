//! Room versions as data: an id and ruma's table of rules, never a comparison of numbers.

use std::{fmt, sync::LazyLock};

pub use ruma::room_version_rules::{
    AuthorizationRules, EventIdFormatVersion, EventsReferenceFormatVersion, RedactionRules,
    RoomIdFormatVersion, RoomVersionRules, StateResolutionVersion,
};
use ruma::{OwnedRoomId, RoomVersionId};
use thiserror::Error;

/// A room version whose rules we know. Copies are free.
#[derive(Clone, Copy)]
pub struct RoomVersion(&'static Entry);

struct Entry {
    id: RoomVersionId,
    rules: RoomVersionRules,
    lengths: Lengths,
}

/// In what the limit of 255 on types and state keys is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// Synapse let events pass that other servers, and the specification, refuse: rooms have them.
    CodePoints,
    Bytes,
}

/// The room version is not one of 1 to 12.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unsupported room version {0:?}")]
pub struct UnsupportedRoomVersion(pub String);

static VERSIONS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    use RoomVersionId::*;
    [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12]
        .into_iter()
        .map(|id| Entry {
            rules: id.rules().expect("a stable version has rules"),
            lengths: if matches!(id, V11 | V12) { Lengths::Bytes } else { Lengths::CodePoints },
            id,
        })
        .collect()
});

impl RoomVersion {
    /// The stable versions, 1 to 12, in ascending order: rooms of all of them can live here.
    pub fn all() -> impl Iterator<Item = RoomVersion> {
        VERSIONS.iter().map(RoomVersion)
    }

    /// The default for new rooms: 12 (specification, "Room versions").
    pub fn latest() -> RoomVersion {
        RoomVersion(VERSIONS.last().expect("the table is not empty"))
    }

    /// Looks up a stable version.
    pub fn parse(id: &str) -> Result<RoomVersion, UnsupportedRoomVersion> {
        Self::all().find(|v| v.as_str() == id).ok_or_else(|| UnsupportedRoomVersion(id.into()))
    }

    pub fn id(self) -> &'static RoomVersionId {
        &self.0.id
    }

    pub fn as_str(self) -> &'static str {
        self.0.id.as_str()
    }

    pub fn lengths(self) -> Lengths {
        self.0.lengths
    }

    pub fn rules(self) -> &'static RoomVersionRules {
        &self.0.rules
    }

    /// Whether events carry their ids, which nothing binds to what they say (versions 1 and 2).
    pub fn id_is_claimed(self) -> bool {
        self.rules().event_format.require_event_id
    }

    /// Whether events of one version are events of the other, word for word: they are the same
    /// version, or 1 and 2, which differ in state resolution alone.
    pub fn shares_events_with(self, other: RoomVersion) -> bool {
        self == other || self.id_is_claimed() && other.id_is_claimed()
    }

    /// Whether the room id is the hash of the create event (room version 12, MSC4291).
    pub fn room_id_is_create_hash(self) -> bool {
        self.rules().authorization.room_create_event_id_as_room_id
    }

    /// The event id of the create event of a room whose id is its hash.
    pub fn create_event_id(self, room_id: &ruma::RoomId) -> Option<ruma::OwnedEventId> {
        if !self.room_id_is_create_hash() {
            return None;
        }
        ruma::EventId::parse(format!("${}", room_id.as_str().get(1..)?)).ok()
    }

    /// The room id that a create event founds where the id is its hash.
    pub fn room_id_of_create(self, create: &ruma::EventId) -> Option<OwnedRoomId> {
        if !self.room_id_is_create_hash() {
            return None;
        }
        ruma::RoomId::parse(format!("!{}", create.as_str().get(1..)?)).ok()
    }
}

impl PartialEq for RoomVersion {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for RoomVersion {}

impl fmt::Debug for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomVersion({})", self.as_str())
    }
}

impl fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
