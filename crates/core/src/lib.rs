//! The Matrix event model, without I/O: ids, PDUs, canonical JSON, hashes, signatures, redaction
//! and room versions.
//!
//! An event passes through stages that are types: bytes become a [`Pdu`] (well-formed for its room
//! version), a [`Pdu`] becomes a [`CheckedPdu`] (signatures hold; redacted if the content hash does
//! not). Verdicts of the authorisation rules live in `exeunt-state-res`.

pub mod canonical;
pub mod draft;
pub mod encoding;
pub mod hash;
mod kept;
pub mod key;
pub mod pdu;
pub mod pending;
pub mod redact;
pub mod reference;
pub mod request;
pub mod state;
pub mod text;
pub mod verify;
pub mod version;
pub mod wire;

pub use draft::{Draft, MAX_CLOCK_LEAD_MS, date_after};
pub use key::{KeyRing, Signer, VerifyKey};
pub use pdu::{FormatError, Pdu};
pub use pending::PendingMembership;
pub use reference::Reference;
pub use request::{request_object, request_text};
pub use ruma;
pub use state::{StateKey, StateMap};
pub use verify::{CheckedPdu, SignatureError};
pub use version::RoomVersion;

/// A JSON object as events carry it. Key order is the encoder's business, see [`canonical`].
pub type Object = serde_json::Map<String, serde_json::Value>;
