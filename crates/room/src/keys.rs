//! Keys of other servers: kept in the store, fetched when an unknown or expired one is needed.
//!
//! Each server is asked for its own keys; where it does not answer soon, notaries are asked, too.
//! A notary can make keys up, so its word counts for good only if the operator trusts it
//! ([`Options::trusted_key_servers`](crate::Options)). The keys that a server gives us while we
//! join a room by way of it serve to check the events of that answer, and are not kept: what it
//! could forge with them is what it hands us itself.
//!
//! Specification: server-server API, "Retrieving server keys".

mod fetch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use exeunt_core::{
    CheckedPdu, KeyRing, Pdu, SignatureError, Signer, VerifyKey,
    key::{KnownKey, signatures_of},
    verify::required_signers,
};
use exeunt_store::{Batch, Store, StoreError, records::ServerKeyRecord, tables};
use futures_util::{StreamExt, TryStreamExt, stream};
use ruma::{OwnedServerName, ServerName};
use tokio::time::timeout;

use crate::{
    Clock, Remote,
    remote::{ServerKeys, WantedKeys},
};

/// How long a server is not asked again after its keys could not be had: doubled each time, up to
/// the second.
const COOL_DOWN_MS: u64 = 5_000;
const MAX_COOL_DOWN_MS: u64 = 60_000;
/// How long a server is not asked again after it answered.
const FRESH_MS: u64 = 60_000;
/// Most key ids of one server that are looked up for one check.
const MAX_KEY_IDS: usize = 10;
/// Most servers whose last fetch is remembered.
const MAX_REMEMBERED: usize = 10_000;
/// Most servers whose keys are fetched for events that nobody asked for: whoever invites a user of
/// ours chooses them.
const MAX_SERVERS_UNASKED: usize = 5;
/// How long that may take: somebody waits for the answer to an invite.
const UNASKED_DEADLINE: Duration = Duration::from_secs(1);
/// Events whose signatures are checked in one go.
const CHECKED_AT_ONCE: usize = 64;
/// Such goes side by side.
const CONCURRENT_CHECKS: usize = 4;

/// Verifies by keys that are in the store, and fetches what is missing.
pub struct KeyCache {
    store: Store,
    signer: Arc<Signer>,
    remote: Arc<dyn Remote>,
    clock: Clock,
    notaries: Vec<OwnedServerName>,
    asked: Mutex<HashMap<OwnedServerName, Asked>>,
}

/// When a server was asked last.
#[derive(Clone, Copy)]
struct Asked {
    /// Until when (ms) it is not asked again.
    until: u64,
    /// Failures in a row.
    failures: u32,
}

impl KeyCache {
    pub(crate) fn new(
        store: Store,
        signer: Arc<Signer>,
        remote: Arc<dyn Remote>,
        clock: Clock,
        notaries: Vec<OwnedServerName>,
    ) -> Self {
        Self { store, signer, remote, clock, notaries, asked: Mutex::default() }
    }

    /// Checks signatures and hashes of an event that a server hands us, or that we asked for.
    pub async fn check(
        &self,
        pdu: Pdu,
        handing: Option<&ServerName>,
    ) -> Result<Result<CheckedPdu, SignatureError>, StoreError> {
        let mut wanted = WantedKeys::new();
        want_signers(&mut wanted, &pdu);
        let ring = self.ring(wanted, handing).await?;
        Ok(pdu.check(&ring))
    }

    /// Whether the event carries a signature of `server` under a key that nobody gave us, and
    /// `server` did not answer either: it may hold.
    pub(crate) async fn lacks(&self, pdu: &Pdu, server: &ServerName) -> Result<bool, StoreError> {
        let mut wanted = WantedKeys::new();
        want(&mut wanted, pdu, server);
        let (_, lacking) = self.load(wanted).await?;
        let asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        let answered = asked.get(server).is_some_and(|asked| asked.failures == 0);
        Ok(!answered && lacking.get(server).is_some_and(|keys| !keys.is_empty()))
    }

    /// Checks many events, with the keys of all of them fetched side by side. Each signature is
    /// verified by itself: verified as a batch, some crafted ones pass here and fail elsewhere.
    pub async fn check_all(
        &self,
        pdus: Vec<Pdu>,
    ) -> Result<Vec<Result<CheckedPdu, SignatureError>>, StoreError> {
        let ring = Arc::new(self.for_events(&pdus).await?);
        let mut pdus = pdus.into_iter().peekable();
        let chunks = std::iter::from_fn(|| {
            pdus.peek()?;
            Some(pdus.by_ref().take(CHECKED_AT_ONCE).collect::<Vec<_>>())
        });
        let checks = chunks.map(|chunk| {
            let ring = ring.clone();
            let check = move || chunk.into_iter().map(|pdu| pdu.check(&ring)).collect::<Vec<_>>();
            self.store.off_thread(check)
        });
        let checked: Vec<_> =
            stream::iter(checks).buffered(CONCURRENT_CHECKS).try_collect().await?;
        Ok(checked.into_iter().flatten().collect())
    }

    /// Which of some events that nobody asked for are not by those in whose names they are. Where
    /// keys cannot be had soon, an event may be authentic.
    pub(crate) async fn forged(&self, pdus: &[Pdu]) -> Result<Vec<bool>, StoreError> {
        let mut wanted = WantedKeys::new();
        pdus.iter().for_each(|pdu| want_signers(&mut wanted, pdu));
        let (mut ring, mut lacking) = self.load(wanted.clone()).await?;
        while lacking.len() > MAX_SERVERS_UNASKED {
            lacking.pop_last();
        }
        if !lacking.is_empty() {
            // Those that come in time are stored, whatever becomes of the others.
            let fetched = timeout(UNASKED_DEADLINE, self.ring(lacking, None)).await;
            fetched.map_or(Ok(()), |ring| ring.map(drop))?;
            ring = self.load(wanted).await?.0;
        }
        let mut forged = Vec::new();
        for pdu in pdus {
            forged.push(match pdu.clone().check(&ring) {
                Ok(_) => false,
                Err(error) => !self.lacks(pdu, &error.server).await?,
            });
        }
        Ok(forged)
    }

    /// The keys for what a room that we join by way of a server consists of.
    pub(crate) async fn ring_by_way_of(
        &self,
        wanted: WantedKeys,
        server: &ServerName,
    ) -> Result<KeyRing, StoreError> {
        self.ring(wanted, Some(server)).await
    }

    /// The keys for verifying a request signed by `server`, which must be valid now.
    pub async fn for_request(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<KeyRing, StoreError> {
        let mut wanted = WantedKeys::new();
        wanted.entry(server.to_owned()).or_default().insert(key_id.to_owned(), (self.clock)());
        self.ring(wanted, None).await
    }

    /// Whether `server` signed the event, beyond what its room version demands.
    pub async fn is_signed_by(
        &self,
        event: &CheckedPdu,
        server: &ServerName,
    ) -> Result<bool, StoreError> {
        let mut wanted = WantedKeys::new();
        want(&mut wanted, event, server);
        Ok(event.signed_by(server, &self.ring(wanted, None).await?))
    }

    async fn for_events<'a>(
        &self,
        pdus: impl IntoIterator<Item = &'a Pdu>,
    ) -> Result<KeyRing, StoreError> {
        let mut wanted = WantedKeys::new();
        for pdu in pdus {
            want_signers(&mut wanted, pdu);
        }
        self.ring(wanted, None).await
    }

    /// Keys of the store, and for what it lacks those that can be had. `handing` is the server that
    /// hands us what the keys are for.
    async fn ring(
        &self,
        mut wanted: WantedKeys,
        handing: Option<&ServerName>,
    ) -> Result<KeyRing, StoreError> {
        let mut ring = KeyRing::default();
        let ours = self.signer.server();
        if wanted.remove(ours).is_some() {
            let key = VerifyKey::from_base64(&self.signer.public()).expect("our own key");
            let known = KnownKey { key, valid_until: u64::MAX };
            ring.insert(ours.to_owned(), self.signer.key_id().to_owned(), known);
        }
        let (stored, lacking) = self.load(wanted).await?;
        ring.merge(stored);
        let (lacking, asked) = self.worth_asking(lacking);
        // Whoever asked has stored the answer by now, if not when we looked.
        ring.merge(self.load(asked).await?.0);
        if !lacking.is_empty() {
            self.fetch(lacking, handing, &mut ring).await?;
        }
        Ok(ring)
    }

    /// What the store has, and what it lacks.
    async fn load(&self, wanted: WantedKeys) -> Result<(KeyRing, WantedKeys), StoreError> {
        if wanted.is_empty() {
            return Ok(Default::default());
        }
        self.store
            .read(move |reader| {
                let mut ring = KeyRing::default();
                let mut lacking = WantedKeys::new();
                for (server, keys) in wanted {
                    for (key_id, at) in keys {
                        let row = (server.clone(), key_id.clone());
                        let record = reader.get::<tables::ServerKeys>(&row)?;
                        if record.as_ref().is_none_or(|r| r.current && r.valid_until < at) {
                            let keys = lacking.entry(server.clone()).or_default();
                            keys.insert(key_id.clone(), at);
                        }
                        if let Some(known) = record.as_ref().and_then(known_key) {
                            ring.insert(server.clone(), key_id, known);
                        }
                    }
                }
                Ok((ring, lacking))
            })
            .await
    }

    /// Stores keys.
    async fn keep(&self, server: &ServerName, keys: &ServerKeys) -> Result<(), StoreError> {
        let now = (self.clock)();
        let mut batch = Batch::default();
        for (current, keys) in [(false, &keys.old), (true, &keys.current)] {
            for (key_id, known) in keys {
                let record = ServerKeyRecord {
                    key: known.key.to_base64(),
                    valid_until: known.valid_until,
                    current,
                    fetched_at: now,
                };
                batch.put::<tables::ServerKeys>(&(server.to_owned(), key_id.clone()), &record);
            }
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Keys to ask for, and those of servers that were asked a moment ago.
    fn worth_asking(&self, lacking: WantedKeys) -> (WantedKeys, WantedKeys) {
        let now = (self.clock)();
        let asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        lacking
            .into_iter()
            .partition(|(server, _)| asked.get(server).is_none_or(|asked| asked.until <= now))
    }

    /// Remembers that a server was asked, and whether it answered; its keys are stored by then.
    fn remember(&self, server: &ServerName, answered: bool) {
        let now = (self.clock)();
        let mut asked = self.asked.lock().unwrap_or_else(|e| e.into_inner());
        if asked.len() >= MAX_REMEMBERED {
            asked.retain(|_, asked| asked.until > now);
        }
        if asked.len() >= MAX_REMEMBERED && !asked.contains_key(server) {
            return;
        }
        let failures = asked.get(server).map_or(0, |asked| asked.failures);
        let (pause, failures) = match answered {
            true => (FRESH_MS, 0),
            false => (COOL_DOWN_MS << failures.min(10), failures.saturating_add(1)),
        };
        let until = now + pause.min(if answered { FRESH_MS } else { MAX_COOL_DOWN_MS });
        asked.insert(server.to_owned(), Asked { until, failures });
    }
}

/// Notes the keys of all who must have signed the event.
pub(crate) fn want_signers(wanted: &mut WantedKeys, pdu: &Pdu) {
    for server in required_signers(pdu) {
        want(wanted, pdu, &server);
    }
}

/// Notes the keys that would show that `server` signed the event.
fn want(wanted: &mut WantedKeys, pdu: &Pdu, server: &ServerName) {
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
