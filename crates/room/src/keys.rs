//! Keys of other servers: kept in the store, fetched when an unknown or expired one is needed.
//!
//! Specification: server-server API, "Retrieving server keys".

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use exeunt_core::{
    CheckedPdu, KeyRing, Pdu, SignatureError, Signer, VerifyKey,
    key::{KnownKey, signatures_of},
    verify::required_signers,
};
use exeunt_store::{Batch, Store, StoreError, records::ServerKeyRecord, tables};
use futures_util::{StreamExt, stream};
use ruma::{OwnedServerName, ServerName};

use crate::{Clock, Remote, remote::ServerKeys};

/// How long a server is not asked again after its keys could not be had.
const COOL_DOWN_MS: u64 = 5_000;
/// How long a server is not asked again after it answered.
const FRESH_MS: u64 = 60_000;
/// Most servers asked at a time.
const CONCURRENT_FETCHES: usize = 20;
/// Most key ids of one server that are looked up for one check.
const MAX_KEY_IDS: usize = 10;
/// Most servers whose last fetch is remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Verifies by keys that are in the store, and fetches what is missing.
pub struct KeyCache {
    store: Store,
    signer: Arc<Signer>,
    remote: Arc<dyn Remote>,
    clock: Clock,
    /// Until when (ms) a server is not asked.
    asked: Mutex<HashMap<OwnedServerName, u64>>,
}

/// Keys that a check needs: key id to the time (ms) at which it must be valid.
type Wanted = BTreeMap<OwnedServerName, BTreeMap<String, u64>>;

impl KeyCache {
    pub(crate) fn new(
        store: Store,
        signer: Arc<Signer>,
        remote: Arc<dyn Remote>,
        clock: Clock,
    ) -> Self {
        Self { store, signer, remote, clock, asked: Mutex::default() }
    }

    /// Checks signatures and hashes of an event.
    pub async fn check(&self, pdu: Pdu) -> Result<Result<CheckedPdu, SignatureError>, StoreError> {
        let ring = self.for_events([&pdu]).await?;
        Ok(pdu.check(&ring))
    }

    /// Checks many events, with the keys of all of them fetched side by side.
    pub async fn check_all(
        &self,
        pdus: Vec<Pdu>,
    ) -> Result<Vec<Result<CheckedPdu, SignatureError>>, StoreError> {
        let ring = self.for_events(&pdus).await?;
        Ok(pdus.into_iter().map(|pdu| pdu.check(&ring)).collect())
    }

    /// The keys for verifying a request signed by `server`, which must be valid now.
    pub async fn for_request(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<KeyRing, StoreError> {
        let mut wanted = Wanted::new();
        wanted.entry(server.to_owned()).or_default().insert(key_id.to_owned(), (self.clock)());
        self.ring(wanted).await
    }

    /// Whether `server` signed the event, beyond what its room version demands.
    pub async fn is_signed_by(
        &self,
        event: &CheckedPdu,
        server: &ServerName,
    ) -> Result<bool, StoreError> {
        let mut wanted = Wanted::new();
        want(&mut wanted, event, server);
        Ok(event.signed_by(server, &self.ring(wanted).await?))
    }

    async fn for_events<'a>(
        &self,
        pdus: impl IntoIterator<Item = &'a Pdu>,
    ) -> Result<KeyRing, StoreError> {
        let mut wanted = Wanted::new();
        for pdu in pdus {
            for server in required_signers(pdu) {
                want(&mut wanted, pdu, &server);
            }
        }
        self.ring(wanted).await
    }

    async fn ring(&self, mut wanted: Wanted) -> Result<KeyRing, StoreError> {
        let mut ring = KeyRing::default();
        let ours = self.signer.server();
        if wanted.remove(ours).is_some() {
            let key = VerifyKey::from_base64(&self.signer.public()).expect("our own key");
            let known = KnownKey { key, valid_until: u64::MAX };
            ring.insert(ours.to_owned(), self.signer.key_id().to_owned(), known);
        }
        let (stored, missing) = self.load(wanted).await?;
        ring.merge(stored);
        let missing = self.worth_asking(missing);
        let fetched: Vec<_> = stream::iter(missing)
            .map(|server| async move {
                let keys = self.remote.server_keys(&server).await;
                (server, keys)
            })
            .buffer_unordered(CONCURRENT_FETCHES)
            .collect()
            .await;
        for (server, keys) in fetched {
            match keys {
                Ok(keys) => ring.merge(self.keep(server, keys).await?),
                Err(error) => {
                    tracing::warn!(%server, %error, "the keys of a server cannot be had");
                    self.remember(server, COOL_DOWN_MS);
                }
            }
        }
        Ok(ring)
    }

    /// What the store has, and the servers of which it lacks something.
    async fn load(
        &self,
        wanted: Wanted,
    ) -> Result<(KeyRing, BTreeSet<OwnedServerName>), StoreError> {
        if wanted.is_empty() {
            return Ok(Default::default());
        }
        self.store
            .read(move |reader| {
                let mut ring = KeyRing::default();
                let mut missing = BTreeSet::new();
                for (server, keys) in wanted {
                    for (key_id, at) in keys {
                        let row = (server.clone(), key_id.clone());
                        let record = reader.get::<tables::ServerKeys>(&row)?;
                        if record.as_ref().is_none_or(|r| r.current && r.valid_until < at) {
                            missing.insert(server.clone());
                        }
                        if let Some(known) = record.as_ref().and_then(known_key) {
                            ring.insert(server.clone(), key_id, known);
                        }
                    }
                }
                Ok((ring, missing))
            })
            .await
    }

    async fn keep(&self, server: OwnedServerName, keys: ServerKeys) -> Result<KeyRing, StoreError> {
        let now = (self.clock)();
        let mut batch = Batch::default();
        let mut ring = KeyRing::default();
        for (current, keys) in [(false, keys.old), (true, keys.current)] {
            for (key_id, known) in keys {
                let record = ServerKeyRecord {
                    key: known.key.to_base64(),
                    valid_until: known.valid_until,
                    current,
                    fetched_at: now,
                };
                batch.put::<tables::ServerKeys>(&(server.clone(), key_id.clone()), &record);
                ring.insert(server.clone(), key_id, known);
            }
        }
        self.store.commit(batch).await?;
        self.remember(server, FRESH_MS);
        Ok(ring)
    }

    fn worth_asking(&self, servers: BTreeSet<OwnedServerName>) -> Vec<OwnedServerName> {
        let now = (self.clock)();
        let asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        let due = |server: &OwnedServerName| asked.get(server).is_none_or(|until| *until <= now);
        servers.into_iter().filter(due).collect()
    }

    fn remember(&self, server: OwnedServerName, for_ms: u64) {
        let now = (self.clock)();
        let mut asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        if asked.len() >= MAX_REMEMBERED {
            asked.retain(|_, until| *until > now);
        }
        if asked.len() < MAX_REMEMBERED {
            asked.insert(server, now + for_ms);
        }
    }
}

/// Notes the keys that would show that `server` signed the event.
fn want(wanted: &mut Wanted, pdu: &Pdu, server: &ServerName) {
    let dated = pdu.version().rules().enforce_key_validity;
    let at = if dated { pdu.origin_server_ts() } else { 0 };
    let keys = wanted.entry(server.to_owned()).or_default();
    for (key_id, _) in signatures_of(pdu.object(), server).take(MAX_KEY_IDS) {
        let until = keys.entry(key_id.to_owned()).or_default();
        *until = at.max(*until);
    }
}

fn known_key(record: &ServerKeyRecord) -> Option<KnownKey> {
    let key = VerifyKey::from_base64(&record.key).ok()?;
    Some(KnownKey { key, valid_until: record.valid_until })
}
