//! What other servers ask of us: handshakes, transactions, reads. One file per verb.
//!
//! A method about one room takes an [`Admitted`], which only [`Rooms::admit`](crate::Rooms::admit) makes: no room-scoped
//! route can be served without the room's ACL having been asked.

mod auth_chain;
mod backfill;
mod directory;
mod doubt;
mod event;
mod event_auth;
mod exchange;
mod gate;
mod handed;
mod hierarchy;
mod invite;
mod keys;
mod long_answer;
mod make_join;
mod make_knock;
mod make_leave;
mod missing_events;
mod queue;
mod rest;
pub(crate) mod restricted;
mod send_join;
mod send_knock;
mod send_leave;
mod state;
mod stray;
mod template;
mod timestamp;
mod transaction;
mod visibility;
mod withdrawal;

pub use auth_chain::MAX_AUTH_CHAIN;
pub use backfill::{MAX_BACKFILL, MAX_BACKFILL_FROM};
pub use doubt::{
    MAX_DOUBTS_PER_SERVER, MAX_PROBES, MAX_PROBES_PER_SERVER, MAX_WITHDRAWAL_BYTES,
    MAX_WITHDRAWALS_PER_INVITE, WITHDRAWAL_LIFE_MS,
};
pub(crate) use doubt::{Probes, counts, pending_id};
pub use gate::Admitted;
pub use hierarchy::MAX_CHILDREN_LISTED;
pub use invite::InboundInvite;
pub(crate) use invite::{has_moved_on, put_pending};
pub use keys::KEY_VALIDITY_MS;
pub(crate) use long_answer::LongAnswers;
pub use long_answer::{
    LONG_ANSWER_WAIT, LongAnswer, MAX_LONG_ANSWERS, MAX_LONG_ANSWERS_PER_ORIGIN,
    MAX_LONG_REQUESTS_PER_ORIGIN,
};
pub use missing_events::{
    DEFAULT_MISSING_EVENTS, MAX_MISSING_EVENTS, MAX_MISSING_EVENTS_WALK, MissingEvents,
};
pub(crate) use queue::Queue;
pub use queue::{
    MAX_QUEUED, MAX_QUEUED_PER_ORIGIN, MAX_QUEUED_PER_ROOM, MAX_QUEUED_PER_ROOM_AND_ORIGIN,
};
pub use rest::{FIRST_REST, MAX_TRIES};
pub(crate) use stray::Strays;
pub use stray::{ASKED_AGAIN_AFTER_MS, LEAVE_ARRIVES_WITHIN_MS};
pub(crate) use transaction::is_ours;
pub use transaction::{
    MAX_EDUS, MAX_PDUS, MAX_TRANSACTIONS_PER_ORIGIN, MAX_TXN_ID_BYTES, Transaction,
};
