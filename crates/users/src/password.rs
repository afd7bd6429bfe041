//! Argon2id on the blocking pool, so many at once and no more.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::SystemRandom;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::error::bounded;
use crate::{UsersError, random};

/// Longest password in bytes.
pub const MAX_PASSWORD: usize = 512;
/// Hashes computed at once, each 19 MiB.
pub const MAX_HASHES_AT_ONCE: usize = 2;
/// Hashes that run or wait; beyond that the answer is [`UsersError::Busy`].
pub const MAX_HASHES_WAITING: usize = 64;

const SALT: usize = 16;

pub(crate) struct Hasher {
    rng: SystemRandom,
    running: Semaphore,
    waiting: Semaphore,
    /// What the password of an unknown user is compared with.
    dummy: Arc<OnceLock<String>>,
}

impl Hasher {
    pub(crate) fn new(rng: SystemRandom) -> Self {
        Self {
            rng,
            running: Semaphore::new(MAX_HASHES_AT_ONCE),
            waiting: Semaphore::new(MAX_HASHES_WAITING),
            dummy: Arc::default(),
        }
    }

    /// The hash of a new password in PHC form.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, UsersError> {
        if password.is_empty() {
            return Err(UsersError::WeakPassword("it is empty"));
        }
        bounded("password", password, MAX_PASSWORD)?;
        let salt = random::bytes::<SALT>(&self.rng)?;
        let password = password.to_owned();
        self.run(move || hash(&password, &salt)).await
    }

    /// Whether `password` belongs to `stored`. Without a stored hash the answer is no, after the
    /// same work.
    pub(crate) async fn verify(
        &self,
        password: &str,
        stored: Option<String>,
    ) -> Result<bool, UsersError> {
        if password.len() > MAX_PASSWORD {
            return Ok(false);
        }
        let password = password.to_owned();
        let salt = random::bytes::<SALT>(&self.rng)?;
        let dummy = Arc::clone(&self.dummy);
        self.run(move || match stored {
            Some(stored) => verify(&password, &stored),
            None => {
                let dummy = match dummy.get() {
                    Some(hash) => hash,
                    None => {
                        let made = hash("nobody has this one", &salt)?;
                        dummy.get_or_init(|| made)
                    }
                };
                verify(&password, dummy).map(|_| false)
            }
        })
        .await
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, UsersError> + Send + 'static,
    ) -> Result<R, UsersError> {
        let _place = self.waiting.try_acquire().map_err(|_| UsersError::Busy)?;
        let _turn = self.running.acquire().await.map_err(|_| UsersError::Busy)?;
        tokio::task::spawn_blocking(work).await.map_err(|e| UsersError::Hash(e.to_string()))?
    }
}

fn hash(password: &str, salt: &[u8]) -> Result<String, UsersError> {
    let argon2 = Argon2::default();
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    argon2.hash_password_into(password.as_bytes(), salt, &mut output).map_err(failed)?;
    let hash = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(argon2.params()).map_err(failed)?,
        salt: Some(Salt::new(salt).map_err(failed)?),
        hash: Some(Output::new(&output).map_err(failed)?),
    };
    Ok(hash.to_string())
}

fn verify(password: &str, stored: &str) -> Result<bool, UsersError> {
    let stored = PasswordHash::new(stored).map_err(failed)?;
    let (Some(salt), Some(known)) = (&stored.salt, &stored.hash) else {
        return Err(UsersError::Hash("a stored hash lacks its salt or its output".into()));
    };
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).map_err(failed)?;
    let version = match stored.version {
        Some(version) => Version::try_from(version).map_err(failed)?,
        None => Version::default(),
    };
    let argon2 = Argon2::new(algorithm, version, Params::try_from(&stored).map_err(failed)?);
    let mut output = vec![0; known.len()];
    argon2.hash_password_into(password.as_bytes(), salt.as_ref(), &mut output).map_err(failed)?;
    Ok(output.ct_eq(known.as_bytes()).into())
}

fn failed(error: impl std::fmt::Display) -> UsersError {
    UsersError::Hash(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let hasher = Hasher::new(SystemRandom::new());
        let stored = hasher.hash("swordfish").await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert_ne!(stored, hasher.hash("swordfish").await.unwrap(), "the salt is random");
        assert!(hasher.verify("swordfish", Some(stored.clone())).await.unwrap());
        assert!(!hasher.verify("Swordfish", Some(stored)).await.unwrap());
        assert!(!hasher.verify("nobody has this one", None).await.unwrap());
        assert!(hasher.dummy.get().is_some(), "an unknown user costs a hash as well");
    }

    #[tokio::test]
    async fn hashes_are_what_others_make_and_take() {
        use argon2::password_hash::{PasswordHasher, PasswordVerifier};
        let hasher = Hasher::new(SystemRandom::new());
        let ours = hasher.hash("swordfish").await.unwrap();
        let parsed = PasswordHash::new(&ours).unwrap();
        assert!(Argon2::default().verify_password(b"swordfish", &parsed).is_ok());
        let cheap =
            Argon2::new(Algorithm::Argon2i, Version::V0x10, Params::new(64, 2, 1, None).unwrap());
        let theirs = cheap.hash_password_with_salt(b"swordfish", &[7; 16]).unwrap().to_string();
        assert!(hasher.verify("swordfish", Some(theirs.clone())).await.unwrap());
        assert!(!hasher.verify("Swordfish", Some(theirs)).await.unwrap());
    }

    #[tokio::test]
    async fn bounds_on_new_passwords() {
        let hasher = Hasher::new(SystemRandom::new());
        assert!(matches!(hasher.hash("").await, Err(UsersError::WeakPassword(_))));
        let long = "x".repeat(MAX_PASSWORD + 1);
        assert!(matches!(hasher.hash(&long).await, Err(UsersError::TooLarge { .. })));
        assert!(!hasher.verify(&long, None).await.unwrap());
    }
}
