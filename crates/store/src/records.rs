//! Row types of the tables: plain data, serialised as they stand.

mod departures;

use std::sync::Arc;

use exeunt_core::Object;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::snapshot::Root;
pub use departures::*;

/// The judgement on an event. It is stored, and re-derived only where an ACL stood against it
/// (decision 0014).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum Verdict {
    Accepted,
    /// Allowed by its own history, not by the current state: kept, not shown.
    SoftFailed(String),
    /// Refused by the authorisation rules. Never in state, never an extremity.
    Rejected(String),
}

impl Verdict {
    pub fn is_accepted(&self) -> bool {
        *self == Verdict::Accepted
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self, Verdict::Rejected(_))
    }
}

/// An event and what we know of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRecord {
    /// Canonical JSON of the federation form; of a redacted event, what redaction left.
    pub json: Arc<RawValue>,
    pub room_id: OwnedRoomId,
    pub room_version: String,
    pub verdict: Verdict,
    /// Longest path of auth events below the event, in edges: 0 for what has none.
    pub generation: u64,
    /// State before and after the event; `None` for an outlier, whose place is not known.
    pub states: Option<States>,
    /// Of a state event with states: what the state before has in its place.
    #[serde(default, skip_serializing_if = "Replaced::is_unknown")]
    pub replaces: Replaced,
    /// Order in the room's timeline, if it is shown there.
    pub order: Option<i64>,
    /// The redaction that took the content.
    pub redacted_because: Option<OwnedEventId>,
    /// The server that sent it to us; `None` for our own.
    pub received_from: Option<OwnedServerName>,
}

/// What a state event took the place of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replaced {
    /// The row does not say; the state before does.
    #[default]
    Unknown,
    Nothing,
    Event(OwnedEventId),
}

impl Replaced {
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

impl From<Option<OwnedEventId>> for Replaced {
    fn from(event: Option<OwnedEventId>) -> Self {
        event.map_or(Self::Nothing, Self::Event)
    }
}

/// Roots of the state trees around an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    pub before: Root,
    pub after: Root,
    /// Whether they rest on a state that another server told, be it of an event long before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// An accepted redaction whose target is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactionRecord {
    /// The sender's server, whose own events it redacts in any case.
    pub server: OwnedServerName,
    /// Whether the sender was entitled to redact others' events when it came.
    pub is_entitled: bool,
}

/// An event that relates to another one, as far as it takes to list, count and order them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRecord {
    pub event_id: OwnedEventId,
    pub rel_type: String,
    pub kind: String,
    pub sender: OwnedUserId,
    /// `origin_server_ts`.
    pub ts: u64,
}

/// Head of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoomRecord {
    pub version: String,
    pub create_event: OwnedEventId,
    /// Forward extremities: accepted events that no accepted event follows. The deepest, by depth
    /// and id.
    pub extremities: Vec<OwnedEventId>,
    /// Whether there are more, in `OlderHeads`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_older_heads: bool,
    /// Current state: the extremities' states, resolved.
    pub state: Root,
    /// Stream position of its row in `RoomStates`; 0 in rows from before it was noted.
    #[serde(default)]
    pub state_since: u64,
    /// Whether events of the room may relate to others: whether there were rows in `Relations`.
    #[serde(default = "yes")]
    pub has_relations: bool,
    /// Largest depth among the extremities.
    pub depth: u64,
    /// Lowest order of the timeline so far.
    pub first_order: i64,
    /// Stream position of the last shown event or state change.
    pub position: u64,
    /// Servers that are out of the room now and have yet to be sent what led to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<OwnedServerName>,
    /// Depth of the join by which this server came, 0 where the room was created here. What is less
    /// deep is older than its stay.
    #[serde(default)]
    pub since: u64,
}

/// What is true where it is not said.
fn yes() -> bool {
    true
}

/// What a room is to a local user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembershipRecord {
    pub membership: String,
    /// The member event: in `Events`, or of a pending membership in `Pending`, or `local_event`.
    pub event_id: OwnedEventId,
    pub sender: OwnedUserId,
    /// Stream position of the change.
    pub position: u64,
    /// The member event itself where no graph holds it: a leave of a room that we do not reside
    /// in (an out-of-band leave), in federation form.
    pub local_event: Option<Object>,
    /// The version of a room that was purged, whose event `local_event` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_version: Option<String>,
    /// Whether the user has forgotten the room.
    pub forgotten: bool,
}

/// One membership change as this server saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembershipLogRecord {
    pub membership: String,
    pub event_id: OwnedEventId,
    pub sender: OwnedUserId,
    /// How it came: `local`, `handshake`, `transaction`, `resolution`, `out-of-band`, `withdrawal`
    /// (the event proves that it ends the invite or knock), `probe` (the server that was asked about
    /// it says that it is gone), `abandoned` (an admin gave the departure up; not another change).
    pub via: String,
    pub received_from: Option<OwnedServerName>,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// Withdrawals of an invite that came before it, or that nothing proves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WithdrawalRecord {
    /// Oldest first.
    pub events: Vec<HeldWithdrawal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldWithdrawal {
    /// The leave or ban, as it came.
    pub event: Object,
    /// Milliseconds since the epoch.
    pub at: u64,
    /// The invite or knock that it puts in doubt; `None` if it came before there was one.
    #[serde(default)]
    pub about: Option<OwnedEventId>,
}

/// One use of the signing key on an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignatureRecord {
    /// `event`, `departure`, `out-of-band leave`, `join`, `knock`, `third-party invite`; co-signed:
    /// `invite`, `restricted join`.
    pub purpose: String,
    pub event_id: OwnedEventId,
    /// The server that the handshake ran with.
    pub peer: Option<OwnedServerName>,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// How a server took an event that we sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// Milliseconds since the epoch.
    pub at: u64,
    /// What it said against the event, if it did.
    pub refused: Option<String>,
}

/// One thing that a server has yet to get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxItem {
    Pdu(OwnedEventId),
    Edu(Object),
}

/// Delivery to a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationRecord {
    /// The transaction under way: its id and the last outbox position in it. Sent again as it was
    /// after a restart.
    pub in_flight: Option<InFlight>,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds since the epoch.
    pub retry_at: u64,
    pub failing_since: Option<u64>,
    pub last_error: Option<String>,
    pub last_success: Option<u64>,
    /// During a long outage: tells which rows of the outbox are old.
    #[serde(default)]
    pub mark: Option<OutageMark>,
}

/// The last position of the stream at some time: rows up to it are from then or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageMark {
    pub position: u64,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// Something that a server refused, with what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideRecord {
    /// `None` for something ephemeral.
    pub event_id: Option<OwnedEventId>,
    pub edu_type: Option<String>,
    pub why: String,
    /// Milliseconds since the epoch.
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    pub txn_id: String,
    /// Outbox positions in the transaction.
    pub positions: Vec<u64>,
}

/// The answer to a transaction, by event id: an empty text for success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransactionRecord {
    pub answer: Object,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// An event that another server sent, and that has yet to be worked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboundRecord {
    /// The server that sent it.
    pub origin: OwnedServerName,
    /// As it came: unchecked.
    pub event: Object,
    /// Milliseconds since the epoch.
    pub at: u64,
    /// How often nobody answered when what it lacks was asked for.
    #[serde(default)]
    pub tries: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerKeyRecord {
    /// Public key in base64.
    pub key: String,
    /// Milliseconds since the epoch: valid until, or expired at.
    pub valid_until: u64,
    /// Whether the server lists it as a current key.
    pub current: bool,
    pub fetched_at: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AliasRecord {
    pub room_id: OwnedRoomId,
    pub creator: OwnedUserId,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicRoomRecord {
    pub published_at: u64,
}

/// Something that a user finds inappropriate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentReportRecord {
    pub reported: Reported,
    pub reason: Option<String>,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reported")]
pub enum Reported {
    Event { room_id: OwnedRoomId, event_id: OwnedEventId, sender: OwnedUserId },
    Room { room_id: OwnedRoomId },
    User { user_id: OwnedUserId },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Argon2 hash in PHC form; `None` for an account without a password.
    pub password: Option<String>,
    pub admin: bool,
    pub deactivated: bool,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// By an administrator: the sessions stay and serve for nothing.
    #[serde(default)]
    pub locked: bool,
    /// By an administrator: the user may read and go, and no more.
    #[serde(default)]
    pub suspended: bool,
    /// Closed with the wish that what its user sent be hidden from those who came later.
    #[serde(default)]
    pub erased: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub display_name: Option<String>,
    /// Hash of the device's access token.
    pub token: Option<[u8; 32]>,
    pub created_at: u64,
    /// Hash of its refresh token, if it has one.
    #[serde(default)]
    pub refresh_token: Option<[u8; 32]>,
    /// What the last refresh replaced: good until one of the new tokens is used.
    #[serde(default)]
    pub replaced: Option<ReplacedTokens>,
    #[serde(default)]
    pub seen: Option<SeenRecord>,
}

/// Hashes of tokens that have successors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplacedTokens {
    pub token: Option<[u8; 32]>,
    pub refresh_token: [u8; 32],
}

/// When and from where a device was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// Milliseconds since the epoch.
    pub at: u64,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    /// Milliseconds since the epoch; `None`: never.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Whether it comes from a refresh and has yet to be used.
    #[serde(default)]
    pub unused: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefreshTokenRecord {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
}

/// By whom an account may be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistrationTokenRecord {
    /// Accounts that may be made with it; `None`: any number.
    pub uses_allowed: Option<u64>,
    /// Those that were.
    pub completed: u64,
    /// Milliseconds since the epoch; `None`: never.
    pub expires_at: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileRecord {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
    /// Everything else that the user says there.
    #[serde(default)]
    pub fields: Object,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountDataRecord {
    pub content: Object,
    /// Stream position of the change.
    pub position: u64,
}

/// Whom an event concerns that counts as unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotableRecord {
    pub sender: OwnedUserId,
    /// Root of the thread that the event is in; `None`: the main timeline.
    pub thread: Option<OwnedEventId>,
    /// Whether it counts for everybody, or only where it is a highlight.
    pub counts: bool,
    /// Local users to whom it is a highlight.
    pub highlights: Vec<OwnedUserId>,
    /// Whether it is one to everybody.
    pub highlights_all: bool,
}

/// Up to where a user has read a room, or a thread of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptRecord {
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// `main`, or the thread's root; `None`: unthreaded.
    pub thread_id: Option<String>,
    pub event_id: OwnedEventId,
    /// The event's order in the timeline, as far as it was known.
    #[serde(default)]
    pub order: Option<i64>,
    /// Milliseconds since the epoch.
    pub ts: u64,
    /// Stream position of the change.
    pub position: u64,
}
