//! The port to the network.

use std::collections::BTreeMap;

use async_trait::async_trait;
use exeunt_core::ruma::{OwnedEventId, ServerName};
use serde_json::Value;
use thiserror::Error;

/// Sends a transaction to a server. The implementation signs and has time limits of its own.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// `PUT /_matrix/federation/v1/send/{txnId}`.
    async fn send_transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Value,
    ) -> Result<TransactionAnswer, SendError>;
}

/// What the server made of each event. An event that it does not name went well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionAnswer {
    pub pdus: BTreeMap<OwnedEventId, Result<(), String>>,
}

/// Why a transaction did not arrive, and what follows:
///
/// | What happened | Whose state it is | What follows |
/// |---|---|---|
/// | no route, name unknown, TLS error, time-out ([`SendError::Unreachable`]) | the server's | back-off |
/// | 200 with anything but an answer ([`SendError::Misbehaved`]) | the server's | back-off |
/// | 1xx, 3xx: the endpoint does not redirect | the server's | back-off |
/// | 408, 429: asked to wait | the server's | back-off |
/// | 5xx | the server's | back-off |
/// | other 4xx, for an empty transaction too | the server's: it wants nothing of us | back-off |
/// | other 4xx, but an empty transaction is taken | a row's | halves until the row is found, which is set aside; no back-off |
/// | 200 with an error for an event | the event's | that event is set aside, and a leave goes on as a departure; no back-off |
///
/// Back-off doubles from `retry_min` to `retry_max`; a sign of life of the server ends it. A failing
/// server loses no rows, but for what [`crate::LONG_OUTAGE_MS`] leads to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("refused with {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("misbehaved: {0}")]
    Misbehaved(String),
}

impl SendError {
    /// Whether it may be what we sent that the server will not have.
    pub(crate) fn may_be_content(&self) -> bool {
        match self {
            SendError::Refused { status: 408 | 429, .. } => false,
            SendError::Refused { status, .. } => (400..500).contains(status),
            SendError::Unreachable(_) | SendError::Misbehaved(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_may_be() {
        let refused = |status| SendError::Refused { status, message: String::new() };
        for status in [400, 401, 403, 404, 413, 422] {
            assert!(refused(status).may_be_content(), "{status}");
        }
        for status in [302, 408, 429, 500, 502, 503] {
            assert!(!refused(status).may_be_content(), "{status}");
        }
        assert!(!SendError::Unreachable(String::new()).may_be_content());
        assert!(!SendError::Misbehaved(String::new()).may_be_content());
    }
}
