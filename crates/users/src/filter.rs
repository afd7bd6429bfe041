//! Stored filters. Specification: client-server API, "Filtering".

use exeunt_core::ruma::UserId;
use exeunt_core::{Object, canonical};
use exeunt_store::Batch;
use exeunt_store::tables::Filters;

use crate::error::bounded;
use crate::{Users, UsersError};

/// Largest filter, encoded.
pub const MAX_FILTER: usize = 64 * 1024;
/// Filters that one user may store.
pub const MAX_FILTERS: usize = 500;

impl Users {
    /// Stores a filter and returns its id. The same filter again gets the same id.
    pub async fn create_filter(&self, user: &UserId, filter: Object) -> Result<u64, UsersError> {
        bounded("filter", &canonical::encode(&filter), MAX_FILTER)?;
        let _guard = self.lock(user).await;
        let key = user.to_owned();
        let rows = self.inner.store.read(move |r| r.scan::<Filters>(key).collect()).await?;
        if let Some(((_, id), _)) = rows.iter().find(|(_, stored)| *stored == filter) {
            return Ok(*id);
        }
        if rows.len() >= MAX_FILTERS {
            return Err(UsersError::TooMany { what: "filters", max: MAX_FILTERS });
        }
        let id = rows.last().map_or(0, |((_, last), _)| last + 1);
        let mut batch = Batch::default();
        batch.put::<Filters>(&(user.to_owned(), id), &filter);
        self.inner.store.commit(batch).await?;
        Ok(id)
    }

    pub async fn filter(&self, user: &UserId, id: u64) -> Result<Option<Object>, UsersError> {
        let key = (user.to_owned(), id);
        Ok(self.inner.store.read(move |r| r.get::<Filters>(&key)).await?)
    }
}
