//! The text of an event that the store kept: its header is read at once, the rest when it is asked
//! for. Most events are read to be shown, and for that their text will do.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{FormatError, Object, RoomVersion, reference};

/// What is read at once.
#[derive(Deserialize)]
pub(crate) struct Header<'t> {
    #[serde(rename = "type")]
    pub kind: String,
    pub state_key: Option<String>,
    pub sender: OwnedUserId,
    pub room_id: Option<OwnedRoomId>,
    pub depth: u64,
    pub origin_server_ts: u64,
    #[serde(borrow)]
    prev_events: &'t RawValue,
    #[serde(borrow)]
    auth_events: &'t RawValue,
    #[serde(borrow)]
    content: &'t RawValue,
}

impl<'t> Header<'t> {
    pub fn read(text: &'t RawValue) -> Result<Self, FormatError> {
        let header: Self = serde_json::from_str(text.get()).map_err(json_error)?;
        match header.content.get().starts_with('{') {
            true => Ok(header),
            false => Err(FormatError::Field("content")),
        }
    }

    /// The ids of `prev_events` and of `auth_events`.
    pub fn references(&self, version: RoomVersion) -> Result<[Vec<OwnedEventId>; 2], FormatError> {
        Ok([ids(version, self.prev_events)?, ids(version, self.auth_events)?])
    }

    pub fn keep(&self, text: &Arc<RawValue>) -> Kept {
        let content = self.content.get();
        let start = content.as_ptr().addr() - text.get().as_ptr().addr();
        Kept {
            text: Arc::clone(text),
            content_at: start..start + content.len(),
            content: OnceLock::new(),
            object: OnceLock::new(),
        }
    }
}

fn ids(version: RoomVersion, list: &RawValue) -> Result<Vec<OwnedEventId>, FormatError> {
    if !reference::as_pairs(version) {
        return serde_json::from_str(list.get()).map_err(json_error);
    }
    let pairs: Vec<(OwnedEventId, IgnoredAny)> =
        serde_json::from_str(list.get()).map_err(json_error)?;
    Ok(pairs.into_iter().map(|(id, _)| id).collect())
}

fn json_error(error: serde_json::Error) -> FormatError {
    FormatError::Json(error.to_string())
}

/// The text, and what was read of it since.
pub(crate) struct Kept {
    text: Arc<RawValue>,
    content_at: Range<usize>,
    content: OnceLock<Object>,
    object: OnceLock<Object>,
}

impl Kept {
    pub fn content_text(&self) -> &str {
        &self.text.get()[self.content_at.clone()]
    }

    pub fn content(&self) -> &Object {
        self.content.get_or_init(|| read(self.content_text()))
    }

    pub fn object(&self) -> &Object {
        self.object.get_or_init(|| read(self.text.get()))
    }
}

/// The grammar holds, for the header was read, and the text was an object's when it was kept.
fn read(text: &str) -> Object {
    serde_json::from_str(text).expect("what was an object reads as one")
}
