//! Fetching keys: from their servers, and with a delay from notaries.

use std::{pin::pin, time::Duration};

use exeunt_core::{KeyRing, key::signatures_of};
use exeunt_store::StoreError;
use futures_util::{StreamExt, stream};
use ruma::{OwnedServerName, ServerName};
use tokio::time::{sleep, timeout};

use super::{KeyCache, MAX_KEY_IDS};
use crate::{
    RemoteError,
    remote::{ServerKeys, WantedKeys},
};

/// Most servers asked at a time.
const CONCURRENT_FETCHES: usize = 50;
/// How long a server may take to give its own keys.
const DIRECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long servers have before notaries are asked, too.
const HEAD_START: Duration = Duration::from_millis(1_500);
/// How long a notary may take, who asks the servers in turn.
const NOTARY_DEADLINE: Duration = Duration::from_secs(20);
/// How long it all may take; what is lacking then stays lacking.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);
/// Most servers in one query to a notary.
const SERVERS_PER_QUERY: usize = 100;
/// Queries to notaries at a time.
const CONCURRENT_QUERIES: usize = 4;

/// Somebody who may know keys of others.
#[derive(Clone)]
struct Notary {
    name: OwnedServerName,
    /// Whether its word is kept.
    trusted: bool,
}

impl KeyCache {
    /// Fetches what is lacking, as far as it can be had.
    pub(super) async fn fetch(
        &self,
        mut lacking: WantedKeys,
        handing: Option<&ServerName>,
        ring: &mut KeyRing,
    ) -> Result<(), StoreError> {
        let fetched = self.fetch_by_all_means(&mut lacking, handing, ring);
        if timeout(FETCH_DEADLINE, fetched).await.map_or(Ok(true), |done| done.map(|()| false))? {
            tracing::info!(servers = lacking.len(), "the keys of some servers took too long");
        }
        Ok(())
    }

    async fn fetch_by_all_means(
        &self,
        lacking: &mut WantedKeys,
        handing: Option<&ServerName>,
        ring: &mut KeyRing,
    ) -> Result<(), StoreError> {
        let servers: Vec<_> = lacking.keys().cloned().collect();
        let mut direct = pin!(
            stream::iter(servers)
                .map(|server| self.ask(server))
                .buffer_unordered(CONCURRENT_FETCHES)
                .fuse()
        );
        let mut head_start = pin!(sleep(HEAD_START));
        loop {
            tokio::select! {
                biased;
                answer = direct.next() => match answer {
                    Some((server, keys)) => self.learn(server, keys, lacking, ring).await?,
                    None => break,
                },
                () = &mut head_start => break,
            }
        }
        let notaries = self.notaries(handing);
        if lacking.is_empty() || notaries.is_empty() {
            while let Some((server, keys)) = direct.next().await {
                self.learn(server, keys, lacking, ring).await?;
            }
            return Ok(());
        }
        let mut by_notary = pin!(
            stream::iter(queries(&notaries, lacking))
                .map(|(notary, wanted)| async move {
                    let keys = self.ask_notary(&notary.name, &wanted).await;
                    (notary, keys)
                })
                .buffer_unordered(CONCURRENT_QUERIES)
                .fuse()
        );
        while !lacking.is_empty() {
            tokio::select! {
                biased;
                Some((server, keys)) = direct.next() => {
                    self.learn(server, keys, lacking, ring).await?;
                }
                Some((notary, keys)) = by_notary.next() => {
                    for (server, mut keys) in keys? {
                        let Some(wanted) = lacking.get(&server) else { continue };
                        // Nothing else of what it says was asked for.
                        keys.current.retain(|key_id, _| wanted.contains_key(key_id));
                        keys.old.retain(|key_id, _| wanted.contains_key(key_id));
                        if notary.trusted {
                            self.keep(&server, &keys).await?;
                        }
                        merge(&server, keys, lacking, ring);
                    }
                }
                else => break,
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        server: OwnedServerName,
    ) -> (OwnedServerName, Result<ServerKeys, RemoteError>) {
        let keys = timeout(DIRECT_DEADLINE, self.remote.server_keys(&server)).await;
        let late = |_| Err(RemoteError::Unreachable("no answer in time".into()));
        (server, keys.unwrap_or_else(late))
    }

    /// Takes what a server says of its own keys.
    async fn learn(
        &self,
        server: OwnedServerName,
        keys: Result<ServerKeys, RemoteError>,
        lacking: &mut WantedKeys,
        ring: &mut KeyRing,
    ) -> Result<(), StoreError> {
        match keys {
            Ok(keys) => {
                self.keep(&server, &keys).await?;
                self.remember(&server, true);
                merge(&server, keys, lacking, ring);
            }
            Err(error) => {
                self.remember(&server, false);
                tracing::warn!(%server, %error, "the keys of a server cannot be had from it");
            }
        }
        Ok(())
    }

    fn notaries(&self, handing: Option<&ServerName>) -> Vec<Notary> {
        let trusted = self.notaries.iter().map(|name| Notary { name: name.clone(), trusted: true });
        let handing = handing.filter(|name| !self.notaries.iter().any(|known| known == name));
        let handing = handing.map(|name| Notary { name: name.to_owned(), trusted: false });
        let ours = self.signer.server();
        handing.into_iter().chain(trusted).filter(|notary| notary.name != ours).collect()
    }

    /// What a notary says, as far as it has signed it.
    async fn ask_notary(
        &self,
        notary: &ServerName,
        wanted: &WantedKeys,
    ) -> Result<Vec<(OwnedServerName, ServerKeys)>, StoreError> {
        let answer = timeout(NOTARY_DEADLINE, self.remote.keys_by_notary(notary, wanted)).await;
        let answers = match answer {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                tracing::info!(%notary, %error, "a notary gave no keys");
                return Ok(Vec::new());
            }
            Err(_) => {
                tracing::info!(%notary, "a notary gave no keys in time");
                return Ok(Vec::new());
            }
        };
        let now = (self.clock)();
        let mut own = WantedKeys::new();
        for (_, keys) in &answers {
            let key_ids = signatures_of(&keys.document, notary).take(MAX_KEY_IDS);
            own.entry(notary.to_owned())
                .or_default()
                .extend(key_ids.map(|(id, _)| (id.into(), now)));
        }
        let (mut ring, lacking) = self.load(own).await?;
        if self.worth_asking(lacking).0.contains_key(notary) {
            let (name, keys) = self.ask(notary.to_owned()).await;
            self.learn(name, keys, &mut WantedKeys::new(), &mut ring).await?;
        }
        let signed = |keys: &ServerKeys| ring.signed_by(&keys.document, notary, Some(now));
        Ok(answers.into_iter().filter(|(_, keys)| signed(keys)).collect())
    }
}

/// What each notary is asked. Nobody is a notary for themselves.
fn queries(notaries: &[Notary], lacking: &WantedKeys) -> Vec<(Notary, WantedKeys)> {
    let mut queries = Vec::new();
    for notary in notaries {
        let others: Vec<_> = lacking.iter().filter(|(server, _)| **server != notary.name).collect();
        for part in others.chunks(SERVERS_PER_QUERY) {
            let wanted = part.iter().map(|(server, keys)| ((*server).clone(), (*keys).clone()));
            queries.push((notary.clone(), wanted.collect()));
        }
    }
    queries
}

/// Adds keys to the ring, and strikes those that are not lacking any more.
fn merge(server: &ServerName, keys: ServerKeys, lacking: &mut WantedKeys, ring: &mut KeyRing) {
    for (key_id, known) in keys.old.into_iter().chain(keys.current) {
        if let Some(wanted) = lacking.get_mut(server) {
            wanted.retain(|id, at| *id != key_id || *at > known.valid_until);
        }
        ring.insert(server.to_owned(), key_id, known);
    }
    if lacking.get(server).is_some_and(|wanted| wanted.is_empty()) {
        lacking.remove(server);
    }
}
