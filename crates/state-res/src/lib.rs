//! Authorisation rules and state resolution as pure functions over events in memory.
//!
//! Both are driven by [`RoomVersion`]'s table of rules, never by version numbers. Nothing here
//! does I/O: events come through [`StateLookup`] and [`AuthIndex`], which keep "absent" apart from
//! "could not be read".

pub mod auth;
pub mod lookup;
pub mod resolve;
pub mod trace;

pub use auth::{
    AuthError, AuthEvent, Level, MalformedLevel, Membership, PowerLevels, auth_types, check_auth,
    check_auth_events, check_create,
};
pub use exeunt_core::RoomVersion;
pub use lookup::{Agreed, AuthIndex, EventSource, LookupError, StateLookup};
pub use resolve::{Conflict, ResolveError, is_power_event, resolve, resolve_conflict};
pub use trace::{Check, Recorder, Trace};
