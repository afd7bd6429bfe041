//! Sessions by token hash, the recent ones.

use std::collections::HashMap;

use exeunt_core::ruma::UserId;

use crate::Session;
use crate::token::TokenHash;

/// Sessions in each of the two generations.
const MAX_GENERATION: usize = 4096;

/// A session, and until when its token is good (ms).
#[derive(Debug, Clone)]
pub(crate) struct Cached {
    pub session: Session,
    pub expires_at: Option<u64>,
}

/// Two generations: a full young one becomes the old one, and the old one goes.
///
/// A reader notes [`epoch`](Self::epoch) before it asks the store; an entry that was read before
/// an invalidation never enters after it.
#[derive(Default)]
pub(crate) struct SessionCache {
    young: HashMap<TokenHash, Cached>,
    old: HashMap<TokenHash, Cached>,
    epoch: u64,
}

impl SessionCache {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn get(&mut self, token: &TokenHash) -> Option<Cached> {
        if let Some(session) = self.young.get(token) {
            return Some(session.clone());
        }
        let session = self.old.remove(token)?;
        self.put(*token, session.clone());
        Some(session)
    }

    pub(crate) fn insert(&mut self, epoch: u64, token: TokenHash, session: Cached) {
        if epoch == self.epoch {
            self.put(token, session);
        }
    }

    /// Forgets the sessions of a user that `gone` picks.
    pub(crate) fn forget(&mut self, user: &UserId, gone: impl Fn(&Session) -> bool) {
        self.epoch += 1;
        let keep = |_: &TokenHash, cached: &mut Cached| {
            cached.session.user_id != user || !gone(&cached.session)
        };
        self.young.retain(keep);
        self.old.retain(keep);
    }

    fn put(&mut self, token: TokenHash, session: Cached) {
        if self.young.len() >= MAX_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, session);
    }
}

#[cfg(test)]
mod tests {
    use exeunt_core::ruma::{device_id, user_id};

    use super::*;

    fn session() -> Cached {
        let session = Session {
            user_id: user_id!("@a:example.org").to_owned(),
            device_id: device_id!("D").to_owned(),
            locked: false,
            suspended: false,
            by_service: None,
        };
        Cached { session, expires_at: None }
    }

    fn token(i: usize) -> TokenHash {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&i.to_be_bytes());
        token
    }

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let mut cache = SessionCache::default();
        for i in 0..MAX_GENERATION * 5 {
            cache.insert(0, token(i), session());
            assert!(cache.get(&token(0)).is_some(), "used at {i}");
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * MAX_GENERATION);
        assert!(cache.get(&token(1)).is_none());
    }

    #[test]
    fn a_stale_read_does_not_enter() {
        let mut cache = SessionCache::default();
        let epoch = cache.epoch();
        cache.forget(&session().session.user_id, |_| true);
        cache.insert(epoch, token(1), session());
        assert!(cache.get(&token(1)).is_none());
    }
}
