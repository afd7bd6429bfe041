//! Vouching for the key documents of other servers.
//!
//! Specification: server-server API, "Querying keys through another server". Anyone may ask, so
//! what is fetched is kept in memory only, and asking does not fetch more often than we allow.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use exeunt_core::Object;
use futures_util::{StreamExt, stream};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::Rooms;

/// Most servers in one query.
pub const MAX_NOTARY_SERVERS: usize = 100;
/// Most documents that are remembered.
const MAX_DOCUMENTS: usize = 200;
/// How long a server is not asked again, whatever it answered.
const REFETCH_MS: u64 = 60_000;
/// How long a fetch may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Most fetches at a time, over all queries.
const MAX_FETCHES: usize = 10;

pub(crate) struct Notary {
    remembered: Mutex<BTreeMap<OwnedServerName, Remembered>>,
    fetches: Semaphore,
}

struct Remembered {
    /// `None` if the server gave none.
    document: Option<Object>,
    asked_at: u64,
}

impl Default for Notary {
    fn default() -> Self {
        Self { remembered: Mutex::default(), fetches: Semaphore::new(MAX_FETCHES) }
    }
}

impl Notary {
    /// The answer for a server, if it need not be asked: its keys are valid for long enough, or it
    /// was asked a moment ago.
    fn recall(&self, server: &ServerName, valid_until: u64, now: u64) -> Option<Option<Object>> {
        let remembered = self.lock();
        let known = remembered.get(server)?;
        let long_enough = known.document.as_ref().is_some_and(|d| valid_until_of(d) >= valid_until);
        let recent = now < known.asked_at.saturating_add(REFETCH_MS);
        (long_enough || recent).then(|| known.document.clone())
    }

    /// Remembers an answer. An older document outlives a server that cannot be reached.
    fn learn(&self, server: &ServerName, document: Option<Object>, now: u64) -> Option<Object> {
        let mut remembered = self.lock();
        let document =
            document.or_else(|| remembered.get(server).and_then(|known| known.document.clone()));
        if remembered.len() >= MAX_DOCUMENTS && !remembered.contains_key(server) {
            let oldest = remembered.iter().min_by_key(|(_, known)| known.asked_at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                remembered.remove(&oldest);
            }
        }
        let known = Remembered { document: document.clone(), asked_at: now };
        remembered.insert(server.to_owned(), known);
        document
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedServerName, Remembered>> {
        self.remembered.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Rooms {
    /// Key documents with our signature added, of servers that have one. Each server comes with
    /// the time (ms) until which its keys should be valid; one that cannot meet that is answered
    /// for all the same. Looks at no more than [`MAX_NOTARY_SERVERS`].
    pub async fn notarized_keys(&self, wanted: BTreeMap<OwnedServerName, u64>) -> Vec<Object> {
        stream::iter(wanted.into_iter().take(MAX_NOTARY_SERVERS))
            .map(|(server, valid_until)| async move {
                if server == self.server_name() {
                    return Some(self.key_document(self.now()));
                }
                let mut document = self.document_of(&server, valid_until).await?;
                self.signer().sign_object(&mut document);
                Some(document)
            })
            .buffered(MAX_FETCHES)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    async fn document_of(&self, server: &ServerName, valid_until: u64) -> Option<Object> {
        let notary = &self.inner.notary;
        if let Some(known) = notary.recall(server, valid_until, self.now()) {
            return known;
        }
        let _slot = notary.fetches.acquire().await.ok()?;
        // Someone else may have asked meanwhile.
        if let Some(known) = notary.recall(server, valid_until, self.now()) {
            return known;
        }
        let fetch = self.inner.remote.server_keys(server);
        let document = match tokio::time::timeout(FETCH_DEADLINE, fetch).await {
            Ok(Ok(keys)) => Some(keys.document),
            Ok(Err(error)) => {
                tracing::info!(%server, %error, "no keys to vouch for");
                None
            }
            Err(_) => {
                tracing::info!(%server, "no keys to vouch for in time");
                None
            }
        };
        notary.learn(server, document, self.now())
    }
}

fn valid_until_of(document: &Object) -> u64 {
    document.get("valid_until_ts").and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;

    fn document(valid_until: u64) -> Object {
        json!({ "valid_until_ts": valid_until }).as_object().unwrap().clone()
    }

    #[test]
    fn a_server_is_asked_again_when_its_keys_are_too_short_lived() {
        let (notary, name) = (Notary::default(), server_name!("b.example"));
        assert_eq!(notary.recall(name, 0, 0), None);
        assert_eq!(notary.learn(name, Some(document(500_000)), 0), Some(document(500_000)));
        assert_eq!(notary.recall(name, 500_000, REFETCH_MS), Some(Some(document(500_000))));
        assert_eq!(notary.recall(name, 500_001, REFETCH_MS), None);
        // But not at once, and what is known is better than nothing.
        assert_eq!(notary.recall(name, 500_001, REFETCH_MS - 1), Some(Some(document(500_000))));
        assert_eq!(notary.learn(name, None, REFETCH_MS), Some(document(500_000)));
    }

    #[test]
    fn the_oldest_answer_is_forgotten_first() {
        let notary = Notary::default();
        for i in 0..=MAX_DOCUMENTS as u64 {
            let name = ServerName::parse(format!("s{i}.example")).unwrap();
            notary.learn(&name, None, i);
        }
        assert_eq!(notary.lock().len(), MAX_DOCUMENTS);
        assert_eq!(notary.recall(server_name!("s0.example"), 0, 0), None);
        assert_eq!(notary.recall(server_name!("s1.example"), 0, 1), Some(None));
    }
}
