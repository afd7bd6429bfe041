//! Account data of local users, global and by room.

use exeunt_core::ruma::{OwnedRoomId, RoomId, UserId};
use exeunt_core::{Object, canonical};
use exeunt_store::Batch;
use exeunt_store::records::AccountDataRecord;
use exeunt_store::tables::AccountData as Table;

use crate::error::bounded;
use crate::push_rules::PUSH_RULES;
use crate::{Users, UsersError};

/// Largest content, encoded.
pub const MAX_ACCOUNT_DATA: usize = 256 * 1024;
/// Longest type in bytes.
const MAX_TYPE: usize = 255;
/// Pieces that one user may have, deleted ones counted.
const MAX_ITEMS: usize = 20_000;

/// One piece of account data.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountData {
    /// `None`: global.
    pub room_id: Option<OwnedRoomId>,
    pub kind: String,
    pub content: Object,
    /// Stream position of the change.
    pub position: u64,
}

impl Users {
    /// Stores account data and returns the stream position of the change. An empty object deletes
    /// (MSC3391): clients that sync are told of it once, and nobody after that.
    pub async fn put_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        content: Object,
    ) -> Result<u64, UsersError> {
        self.change_account_data(user, room, kind, |old| *old = content).await
    }

    /// Changes account data, which begins as an empty object.
    pub async fn change_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        change: impl FnOnce(&mut Object),
    ) -> Result<u64, UsersError> {
        let _guard = self.lock(user).await;
        let mut content = match self.stored_account_data(user, room, kind).await? {
            Some(content) => content,
            None => {
                let user = user.to_owned();
                let items = self.inner.store.read(move |r| r.scan::<Table>(user).keys()).await?;
                if items.len() >= MAX_ITEMS {
                    let what = "pieces of account data";
                    return Err(UsersError::TooMany { what, max: MAX_ITEMS });
                }
                Object::new()
            }
        };
        change(&mut content);
        self.write_account_data(user, room, kind, content).await
    }

    /// Writes account data. The caller holds the user's lock.
    pub(crate) async fn write_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        content: Object,
    ) -> Result<u64, UsersError> {
        bounded("account data type", kind, MAX_TYPE)?;
        bounded("account data", &canonical::encode(&content), MAX_ACCOUNT_DATA)?;
        let key = key(user, room, kind);
        let mut batch = Batch::default();
        self.inner.account_data.note_with(&mut batch, user.to_owned());
        batch.at_position(move |position, batch| {
            batch.put::<Table>(&key, &AccountDataRecord { content, position });
        });
        Ok(self.inner.store.commit(batch).await?)
    }

    /// Content of this type. Everybody has push rules.
    pub async fn account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Object>, UsersError> {
        if room.is_none() && kind == PUSH_RULES {
            return Ok(Some(self.push_rules_content(user).await?));
        }
        let content = self.stored_account_data(user, room, kind).await?;
        Ok(content.filter(|content| !content.is_empty()))
    }

    /// The same as it is stored: an empty object was deleted.
    pub(crate) async fn stored_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Object>, UsersError> {
        let key = key(user, room, kind);
        let record = self.inner.store.read(move |r| r.get::<Table>(&key)).await?;
        Ok(record.map(|record| record.content))
    }

    /// What changed after stream position `since` and not after `until`, global data first; what was
    /// deleted is an empty object. All of it (`since` 0) is without that, and has push rules, also of
    /// a user who has changed none.
    pub async fn account_data_since(
        &self,
        user: &UserId,
        since: u64,
        until: u64,
    ) -> Result<Vec<AccountData>, UsersError> {
        if since > 0 && !self.inner.account_data.may_be_after(since, user) {
            return Ok(Vec::new());
        }
        let key = user.to_owned();
        let rows = self.inner.store.read(move |r| r.scan::<Table>(key).collect()).await?;
        let is_told = |r: &AccountDataRecord| since > 0 || !r.content.is_empty();
        let changed = rows
            .into_iter()
            .filter(|(_, r)| r.position > since && r.position <= until && is_told(r));
        let mut changed: Vec<_> = changed
            .map(|((_, room, kind), record)| AccountData {
                room_id: RoomId::parse(room).ok(),
                kind,
                content: record.content,
                position: record.position,
            })
            .collect();
        let is_push_rules = |data: &AccountData| data.room_id.is_none() && data.kind == PUSH_RULES;
        if since == 0 && !changed.iter().any(is_push_rules) {
            let content = self.push_rules_content(user).await?;
            let kind = PUSH_RULES.to_owned();
            changed.insert(0, AccountData { room_id: None, kind, content, position: 0 });
        }
        Ok(changed)
    }
}

fn key(
    user: &UserId,
    room: Option<&RoomId>,
    kind: &str,
) -> (exeunt_core::ruma::OwnedUserId, String, String) {
    (user.to_owned(), room.map(ToString::to_string).unwrap_or_default(), kind.to_owned())
}
