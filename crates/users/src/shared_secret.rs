//! Registration by shared secret, as Synapse's `/_synapse/admin/v1/register` documents it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ring::hmac;
use ring::rand::SystemRandom;
use thiserror::Error;

use crate::{Clock, UsersError, random};

/// Nonces out at once. A new one beyond that takes the place of the oldest.
pub const MAX_NONCES: usize = 1024;
/// How long a nonce is good for.
pub const NONCE_LIFE_MS: u64 = 60_000;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SharedSecretError {
    #[error("unknown or expired nonce")]
    UnknownNonce,
    #[error("a NUL stands in the user name, the password or the user type")]
    Nul,
    #[error("the MAC is wrong")]
    WrongMac,
}

/// The signed part of a request, and its MAC in hex.
#[derive(Clone, Copy)]
pub struct SharedSecretRequest<'a> {
    pub nonce: &'a str,
    pub username: &'a str,
    pub password: &'a str,
    pub admin: bool,
    pub user_type: Option<&'a str>,
    pub mac: &'a str,
}

/// Gives out nonces and checks requests made with them.
pub struct SharedSecret {
    key: hmac::Key,
    clock: Clock,
    rng: SystemRandom,
    /// Nonce to the time it was made.
    nonces: Mutex<BTreeMap<String, u64>>,
}

impl SharedSecret {
    pub fn new(secret: &str, clock: Clock, rng: SystemRandom) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        Self { key, clock, rng, nonces: Mutex::default() }
    }

    /// A nonce for one request within a minute.
    pub fn nonce(&self) -> Result<String, UsersError> {
        let nonce = random::secret(&self.rng)?;
        let now = (self.clock)();
        let mut nonces = self.nonces();
        nonces.retain(|_, made| is_fresh(*made, now));
        if nonces.len() >= MAX_NONCES {
            let oldest = nonces.iter().min_by_key(|(_, made)| **made).map(|(n, _)| n.clone());
            if let Some(oldest) = oldest {
                nonces.remove(&oldest);
            }
        }
        nonces.insert(nonce.clone(), now);
        Ok(nonce)
    }

    /// Uses the nonce up and checks the MAC.
    pub fn check(&self, request: &SharedSecretRequest<'_>) -> Result<(), SharedSecretError> {
        let made = self.nonces().remove(request.nonce).ok_or(SharedSecretError::UnknownNonce)?;
        if !is_fresh(made, (self.clock)()) {
            return Err(SharedSecretError::UnknownNonce);
        }
        let free = [request.username, request.password, request.user_type.unwrap_or_default()];
        if free.iter().any(|text| text.contains('\0')) {
            return Err(SharedSecretError::Nul);
        }
        let mac = from_hex(request.mac).ok_or(SharedSecretError::WrongMac)?;
        hmac::verify(&self.key, message(request).as_bytes(), &mac)
            .map_err(|_| SharedSecretError::WrongMac)
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.nonces.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn is_fresh(made: u64, now: u64) -> bool {
    now.saturating_sub(made) < NONCE_LIFE_MS
}

fn message(request: &SharedSecretRequest<'_>) -> String {
    let admin = if request.admin { "admin" } else { "notadmin" };
    let mut parts = vec![request.nonce, request.username, request.password, admin];
    parts.extend(request.user_type.filter(|kind| !kind.is_empty()));
    parts.join("\0")
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[a, b]| u8::try_from(digit(*a)? * 16 + digit(*b)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn secret() -> (SharedSecret, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = Arc::clone(&now);
        let clock: Clock = Arc::new(move || clock.load(Ordering::SeqCst));
        (SharedSecret::new("shared_secret", clock, SystemRandom::new()), now)
    }

    fn request<'a>(nonce: &'a str, mac: &'a str) -> SharedSecretRequest<'a> {
        SharedSecretRequest {
            nonce,
            username: "pepper_roni",
            password: "pizza",
            admin: true,
            user_type: None,
            mac,
        }
    }

    fn mac(secret: &SharedSecret, nonce: &str) -> String {
        let tag = hmac::sign(&secret.key, message(&request(nonce, "")).as_bytes());
        tag.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_documented_message() {
        let (secret, _) = secret();
        assert_eq!(message(&request("n", "")), "n\0pepper_roni\0pizza\0admin");
        let user = SharedSecretRequest { admin: false, user_type: Some("bot"), ..request("n", "") };
        assert_eq!(message(&user), "n\0pepper_roni\0pizza\0notadmin\0bot");
        // printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl sha1 -hmac shared_secret
        assert_eq!(mac(&secret, "thisisanonce"), "48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7");
    }

    #[test]
    fn a_nonce_serves_once() {
        let (secret, _) = secret();
        let nonce = secret.nonce().unwrap();
        let mac = mac(&secret, &nonce);
        assert_eq!(secret.check(&request(&nonce, &mac)), Ok(()));
        assert_eq!(secret.check(&request(&nonce, &mac)), Err(SharedSecretError::UnknownNonce));
    }

    #[test]
    fn a_nonce_dies_after_a_minute_or_a_wrong_mac() {
        let (secret, now) = secret();
        let nonce = secret.nonce().unwrap();
        let right = mac(&secret, &nonce);
        now.fetch_add(NONCE_LIFE_MS, Ordering::SeqCst);
        assert_eq!(secret.check(&request(&nonce, &right)), Err(SharedSecretError::UnknownNonce));

        for bad in ["", "zz", "abc", "00"] {
            let nonce = secret.nonce().unwrap();
            assert_eq!(secret.check(&request(&nonce, bad)), Err(SharedSecretError::WrongMac));
            let right = mac(&secret, &nonce);
            assert_eq!(
                secret.check(&request(&nonce, &right)),
                Err(SharedSecretError::UnknownNonce)
            );
        }
    }

    #[test]
    fn fields_cannot_be_shifted() {
        let (secret, _) = secret();
        let nonce = secret.nonce().unwrap();
        let mac = mac(&secret, &nonce);
        let shifted = SharedSecretRequest {
            username: "pepper_roni\0pizza",
            password: "admin",
            ..request(&nonce, &mac)
        };
        assert_eq!(secret.check(&shifted), Err(SharedSecretError::Nul));
    }

    #[test]
    fn nonces_are_bounded() {
        let (secret, now) = secret();
        let first = secret.nonce().unwrap();
        for _ in 0..MAX_NONCES {
            now.fetch_add(1, Ordering::SeqCst);
            secret.nonce().unwrap();
        }
        assert_eq!(secret.nonces().len(), MAX_NONCES);
        assert!(!secret.nonces().contains_key(&first));
    }
}
