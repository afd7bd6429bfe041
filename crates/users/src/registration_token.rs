//! Registration tokens that administrators give out. Specification: client-server API,
//! "Token-authenticated registration".

use exeunt_store::Batch;
use exeunt_store::records::RegistrationTokenRecord;
use exeunt_store::tables::RegistrationTokens;

use crate::{Users, UsersError, random};

/// Longest token in bytes; the specification sets the bound and the letters.
const MAX_LENGTH: usize = 64;
/// Tokens that there may be.
const MAX_TOKENS: usize = 10_000;
/// Letters of a token that the server makes up: none that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A token as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationToken {
    pub token: String,
    /// `None`: any number.
    pub uses_allowed: Option<u64>,
    /// Accounts that were made with it.
    pub completed: u64,
    /// Milliseconds since the epoch; `None`: never.
    pub expires_at: Option<u64>,
    /// Whether it can be used now.
    pub usable: bool,
}

/// What to make, or what to make of a token: its uses and its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenTerms {
    pub uses_allowed: Option<u64>,
    /// Milliseconds since the epoch.
    pub expires_at: Option<u64>,
}

impl Users {
    pub async fn registration_tokens(&self) -> Result<Vec<RegistrationToken>, UsersError> {
        let rows = self.inner.store.read(|r| r.scan::<RegistrationTokens>(()).collect()).await?;
        Ok(rows.into_iter().map(|(token, record)| self.describe_token(token, &record)).collect())
    }

    pub async fn registration_token(
        &self,
        token: &str,
    ) -> Result<Option<RegistrationToken>, UsersError> {
        let record = self.token_record(token).await?;
        Ok(record.map(|record| self.describe_token(token.to_owned(), &record)))
    }

    /// Makes a token; `None`: the server makes one up.
    pub async fn create_registration_token(
        &self,
        token: Option<&str>,
        terms: TokenTerms,
    ) -> Result<RegistrationToken, UsersError> {
        let token = match token {
            Some(token) => checked(token)?.to_owned(),
            None => random::letters::<16>(&self.inner.rng, LETTERS)?,
        };
        let _guard = self.inner.registering.lock().await;
        let rows = self.inner.store.read(|r| r.scan::<RegistrationTokens>(()).keys()).await?;
        if rows.contains(&token) {
            return Err(UsersError::TokenInUse);
        }
        if rows.len() >= MAX_TOKENS {
            return Err(UsersError::TooMany { what: "registration tokens", max: MAX_TOKENS });
        }
        let TokenTerms { uses_allowed, expires_at } = terms;
        let record = RegistrationTokenRecord { uses_allowed, completed: 0, expires_at };
        self.put_token(&token, &record).await?;
        Ok(self.describe_token(token, &record))
    }

    /// Changes the terms of a token; `None` when there is no such token.
    pub async fn change_registration_token(
        &self,
        token: &str,
        change: impl FnOnce(&mut TokenTerms),
    ) -> Result<Option<RegistrationToken>, UsersError> {
        let _guard = self.inner.registering.lock().await;
        let Some(mut record) = self.token_record(token).await? else { return Ok(None) };
        let RegistrationTokenRecord { uses_allowed, expires_at, .. } = record;
        let mut terms = TokenTerms { uses_allowed, expires_at };
        change(&mut terms);
        TokenTerms { uses_allowed: record.uses_allowed, expires_at: record.expires_at } = terms;
        self.put_token(token, &record).await?;
        Ok(Some(self.describe_token(token.to_owned(), &record)))
    }

    /// Whether there was such a token.
    pub async fn delete_registration_token(&self, token: &str) -> Result<bool, UsersError> {
        let _guard = self.inner.registering.lock().await;
        if self.token_record(token).await?.is_none() {
            return Ok(false);
        }
        let mut batch = Batch::default();
        batch.delete::<RegistrationTokens>(&token.to_owned());
        self.inner.store.commit(batch).await?;
        Ok(true)
    }

    /// Whether somebody could register with the token now.
    pub async fn registration_token_is_usable(&self, token: &str) -> Result<bool, UsersError> {
        Ok(self.registration_token(token).await?.is_some_and(|token| token.usable))
    }

    /// Adds a use of the token to the batch. The caller holds the lock of registrations.
    pub(crate) async fn use_registration_token(
        &self,
        token: &str,
        batch: &mut Batch,
    ) -> Result<(), UsersError> {
        let record = self.token_record(token).await?.filter(|record| self.is_usable(record));
        let mut record = record.ok_or(UsersError::WrongToken)?;
        record.completed += 1;
        batch.put::<RegistrationTokens>(&token.to_owned(), &record);
        Ok(())
    }

    async fn token_record(
        &self,
        token: &str,
    ) -> Result<Option<RegistrationTokenRecord>, UsersError> {
        let token = token.to_owned();
        Ok(self.inner.store.read(move |r| r.get::<RegistrationTokens>(&token)).await?)
    }

    async fn put_token(
        &self,
        token: &str,
        record: &RegistrationTokenRecord,
    ) -> Result<(), UsersError> {
        let mut batch = Batch::default();
        batch.put::<RegistrationTokens>(&token.to_owned(), record);
        self.inner.store.commit(batch).await?;
        Ok(())
    }

    fn is_usable(&self, record: &RegistrationTokenRecord) -> bool {
        record.uses_allowed.is_none_or(|allowed| record.completed < allowed)
            && record.expires_at.is_none_or(|at| self.now() < at)
    }

    fn describe_token(&self, token: String, record: &RegistrationTokenRecord) -> RegistrationToken {
        let usable = self.is_usable(record);
        let RegistrationTokenRecord { uses_allowed, completed, expires_at } = *record;
        RegistrationToken { token, uses_allowed, completed, expires_at, usable }
    }
}

fn checked(token: &str) -> Result<&str, UsersError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if (1..=MAX_LENGTH).contains(&token.len()) && token.bytes().all(allowed) {
        Ok(token)
    } else {
        Err(UsersError::InvalidToken)
    }
}
