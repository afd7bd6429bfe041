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

/// Why a transaction did not arrive. All but a 4xx (429 and 408 apart) are the server's state, not
/// the transaction's, and lead to back-off.
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
