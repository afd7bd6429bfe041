//! Rooms: the one write path (gather, decide, commit, notify) and, apart from it, the read views.
//!
//! - *Gather*: one snapshot of the store, read into plain values ([`graph`]).
//! - *Decide*: pure functions of `exeunt-state-res` and `exeunt-membership`; the outcome is a
//!   [`place::Placement`].
//! - *Commit*: one batch, durable before anyone is told ([`place`]).
//! - *Notify*: clients that sync ([`notify`]), and the sender ([`Wake`]).
//!
//! One writer per room: committing takes the room's [`locks::RoomGuard`]. No guard is held across
//! the network: it is released, the call is made, it is taken again, and everything is read again.

pub mod ephemeral;
pub mod error;
pub mod explain;
pub mod graph;
pub mod inbound;
pub mod keys;
pub mod locks;
mod notary;
pub mod notify;
pub mod remote;
pub mod reports;
pub mod views;

mod append;
mod change;
mod collapse;
mod content_reports;
mod counted;
pub mod create;
mod depart_all;
mod describe;
mod directory;
pub mod farewell;
mod fetch;
mod fetch_limits;
mod forget;
mod gaps;
mod heads;
mod hedge;
mod history;
mod ingest;
pub mod invite;
mod invite_policy;
mod join;
mod knock;
mod leaks;
pub mod leave;
mod let_in;
mod moderation;
mod notable;
mod notices;
mod outliers;
mod pace;
mod parting;
mod place;
mod profile;
mod public_rooms;
mod redactions;
mod relations;
mod resolution;
mod rows;
mod shown;
mod signing;
pub mod spaces;
pub mod standing;
mod sticky;
mod stripped;
mod take_out;
pub mod triage;
mod upgrade;
mod user_directory;
mod words;

use std::{sync::Arc, time::Duration};

use exeunt_core::{RoomVersion, Signer};
use exeunt_store::{LastNews, Store};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};

pub use append::{ClientTransaction, Intent};
pub use content_reports::{MAX_REASON_BYTES, MAX_REPORTS_PER_USER};
pub use create::{NewRoom, Preset};
pub use depart_all::LEAVES_AT_ONCE;
pub use describe::{PublicRoom, RoomSummary};
pub use ephemeral::{EphemeralView, Presence, Receipt, ReceiptKind};
pub use error::RoomError;
pub use exeunt_membership::{Attempt, InboundError};
pub use exeunt_state_res::AuthError;
pub use forget::KEEP_DEPARTURES_MS;
pub use join::{HEDGE_AFTER, clear_unfinished_joins};
pub use keys::KeyCache;
pub use notary::MAX_NOTARY_SERVERS;
pub use notices::Notice;
pub use public_rooms::{PublicRoomsBody, PublicRoomsFilter, PublicRoomsPage, PublicRoomsRequest};
pub use remote::{Call, Entry, Listing, Remote, RemoteError, ServerKeys, WantedKeys};
pub use shown::upgrade_store;
pub use stripped::{MAX_INVITE_STATE_BYTES, MAX_INVITE_STATE_EVENTS};
pub use upgrade::Upgrade;
pub use user_directory::{FoundUser, FoundUsers};

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Told after a commit that rows wait in the outboxes. The rows are durable by then.
pub trait Wake: Send + Sync + 'static {
    fn wake(&self, destinations: &[OwnedServerName]);
    fn departure_queued(&self);
}

/// Makes ids for new rooms of the versions in which an id is not the hash of the create event.
#[derive(Clone)]
pub struct RoomIds(pub Arc<dyn Fn(&ServerName) -> OwnedRoomId + Send + Sync>);

impl std::fmt::Debug for RoomIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomIds")
    }
}

/// Random ones.
impl Default for RoomIds {
    fn default() -> Self {
        Self(Arc::new(RoomId::new_v1))
    }
}

/// The limits and defaults of the rooms service.
#[derive(Debug, Clone)]
pub struct Options {
    pub default_version: RoomVersion,
    /// How long a leave may wait for other servers before the client has its answer.
    pub leave_deadline: Duration,
    /// How long a candidate of a departure may take before the next one is asked as well.
    pub hedge_after: Duration,
    /// Notaries whose word on the keys of other servers is taken.
    pub trusted_key_servers: Vec<OwnedServerName>,
    pub room_ids: RoomIds,
    /// Whether users are told of who is there.
    pub presence: bool,
    /// For how long it is known who left a room that is not here otherwise.
    pub keep_departures: Duration,
    /// For how long it is known what was signed.
    pub keep_signatures: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            default_version: RoomVersion::latest(),
            leave_deadline: Duration::from_secs(2),
            hedge_after: leave::HEDGE_AFTER,
            trusted_key_servers: Vec::new(),
            room_ids: RoomIds::default(),
            presence: true,
            keep_departures: Duration::from_millis(KEEP_DEPARTURES_MS),
            keep_signatures: signing::KEEP_SIGNATURES,
        }
    }
}

/// The rooms of this server. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    signer: Arc<Signer>,
    remote: Arc<dyn Remote>,
    wake: Arc<dyn Wake>,
    clock: Clock,
    options: Options,
    locks: locks::RoomLocks,
    /// Held by the transaction of a server that is being taken.
    turns: locks::Locks<OwnedServerName>,
    notifier: notify::Notifier,
    /// The last events and changes of rooms.
    news: LastNews<OwnedRoomId>,
    lazy_members: views::sync::LazyMembers,
    remembered: views::sync::Remembered,
    keys: KeyCache,
    notary: notary::Notary,
    joins: join::Joins,
    fetch_limits: fetch_limits::FetchLimits,
    inbound: inbound::Queue,
    long_answers: inbound::LongAnswers,
    probes: inbound::Probes,
    strays: inbound::Strays,
    collapses: collapse::Collapses,
    counted: counted::Counted,
    pace: pace::Pace,
    /// Held by the attempt at a departure: one at a time.
    departing: locks::Locks<(OwnedUserId, OwnedRoomId)>,
    /// Shared by leaves on their way out of a room that we are not in. Joins and knocks of the same
    /// user do not pass them: each is on the room's head, and which of them won would be chance.
    crossing: locks::Locks<(OwnedUserId, OwnedRoomId)>,
    /// Held by the departure of a user from everywhere.
    jobs: locks::Locks<OwnedUserId>,
    /// Held by who sends a notice to a user.
    notices: locks::Locks<OwnedUserId>,
    /// Held by who takes in the state across a gap in a room.
    told: locks::Locks<OwnedRoomId>,
    /// Held by the fetch of a room's history.
    histories: locks::Locks<OwnedRoomId>,
    leaks: leaks::Leaks,
    mending: let_in::Mending,
    /// Held by the purge of a forgotten room: one at a time looks through the store.
    purges: tokio::sync::Mutex<()>,
    /// Held from the check that an alias is free to its commit.
    alias_lock: tokio::sync::Mutex<()>,
    ephemeral: ephemeral::Ephemeral,
    users: user_directory::Index,
    /// What others told of rooms elsewhere.
    answers: spaces::Answers,
    walks: spaces::Walks,
}

impl Rooms {
    pub fn new(
        store: Store,
        signer: Arc<Signer>,
        remote: Arc<dyn Remote>,
        wake: Arc<dyn Wake>,
        clock: Clock,
        options: Options,
    ) -> Self {
        let keys = KeyCache::new(
            store.clone(),
            signer.clone(),
            remote.clone(),
            clock.clone(),
            options.trusted_key_servers.clone(),
        );
        let position = *store.position().borrow();
        Self {
            inner: Arc::new(Inner {
                store,
                signer,
                remote,
                wake,
                clock,
                options,
                locks: locks::RoomLocks::default(),
                turns: locks::Locks::default(),
                notifier: notify::Notifier::default(),
                news: LastNews::new(position),
                lazy_members: views::sync::LazyMembers::default(),
                remembered: views::sync::Remembered::default(),
                keys,
                notary: notary::Notary::default(),
                joins: join::Joins::default(),
                fetch_limits: fetch_limits::FetchLimits::default(),
                inbound: inbound::Queue::default(),
                long_answers: inbound::LongAnswers::default(),
                probes: inbound::Probes::default(),
                strays: inbound::Strays::default(),
                collapses: collapse::Collapses::default(),
                counted: counted::Counted::default(),
                pace: pace::Pace::default(),
                departing: locks::Locks::default(),
                crossing: locks::Locks::default(),
                jobs: locks::Locks::default(),
                notices: locks::Locks::default(),
                told: locks::Locks::default(),
                histories: locks::Locks::default(),
                leaks: leaks::Leaks::default(),
                mending: let_in::Mending::default(),
                purges: tokio::sync::Mutex::default(),
                alias_lock: tokio::sync::Mutex::default(),
                ephemeral: ephemeral::Ephemeral::new(position),
                users: user_directory::Index::default(),
                answers: spaces::Answers::default(),
                walks: spaces::Walks::default(),
            }),
        }
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        self.inner.signer.server()
    }

    pub fn keys(&self) -> &KeyCache {
        &self.inner.keys
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.inner.signer
    }

    pub(crate) fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    pub(crate) async fn call(
        &self,
        server: &ServerName,
        call: Call<'_>,
    ) -> Result<serde_json::Value, RemoteError> {
        self.inner.remote.call(server, call).await
    }
}

/// A `Wake` for tests and tools in which nothing is sent.
pub struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: &[OwnedServerName]) {}
    fn departure_queued(&self) {}
}
