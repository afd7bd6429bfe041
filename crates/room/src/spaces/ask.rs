//! What other servers tell of rooms that we do not reside in.
//!
//! Specification: server-server API, "GET /hierarchy/{roomId}".

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::Value;

use super::children::{Child, told_children};
use crate::{Call, RemoteError, RoomSummary, Rooms};

/// Most servers that are asked about one room.
pub const MAX_SERVERS_ASKED: usize = 4;
/// How long what a server told is believed.
pub const ANSWER_LIFE_MS: u64 = 5 * 60 * 1000;
/// Most answers that are kept, and most bytes of them.
const MAX_ANSWERS: usize = 1_000;
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// How long one room may take to ask about, all servers together.
const DEADLINE: Duration = Duration::from_secs(10);

/// A room, as another server tells it.
#[derive(Debug)]
pub(crate) struct Told {
    pub summary: RoomSummary,
    pub children: Vec<Child>,
    /// Those of the children that the server knows, without theirs.
    pub listed: Vec<RoomSummary>,
    /// Children that our server has no way into, by the word of one that knows them.
    pub inaccessible: Vec<OwnedRoomId>,
}

/// Answers of a while ago, each the word of one server. That nobody answered is not remembered.
#[derive(Default)]
pub(crate) struct Answers(Mutex<BTreeMap<AnswerOf, Kept>>);

type AnswerOf = (OwnedRoomId, OwnedServerName);

struct Kept {
    told: Arc<Told>,
    bytes: usize,
    at: u64,
}

impl Answers {
    fn get(&self, key: &AnswerOf, now: u64) -> Option<Arc<Told>> {
        let kept = self.lock();
        let known = kept.get(key).filter(|known| now < known.at + ANSWER_LIFE_MS)?;
        Some(known.told.clone())
    }

    /// Keeps an answer, and drops the oldest ones where there are too many.
    fn put(&self, key: AnswerOf, told: Arc<Told>, bytes: usize, at: u64) {
        let mut kept = self.lock();
        kept.insert(key, Kept { told, bytes, at });
        let mut total: usize = kept.values().map(|known| known.bytes).sum();
        while kept.len() > MAX_ANSWERS || total > MAX_ANSWER_BYTES {
            let oldest = kept.iter().min_by_key(|(_, known)| known.at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            total -= kept.remove(&oldest).map_or(0, |known| known.bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AnswerOf, Kept>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Rooms {
    /// Asks one server after the other about a room; `None` if none of them tells anything.
    pub(super) async fn ask_about(
        &self,
        room_id: &RoomId,
        servers: &[OwnedServerName],
    ) -> Option<Arc<Told>> {
        let answers = &self.inner.answers;
        let others = servers.iter().filter(|server| *server != self.server_name());
        let ask = async {
            for server in others.take(MAX_SERVERS_ASKED) {
                let key = (room_id.to_owned(), server.clone());
                if let Some(known) = answers.get(&key, self.now()) {
                    return Some(known);
                }
                let answer = self.call(server, Call::Hierarchy { room: room_id }).await;
                let bytes = answer.as_ref().map_or(0, |answer| answer.to_string().len());
                match answer.and_then(|answer| read(answer, room_id)) {
                    Ok(told) => {
                        let told = Arc::new(told);
                        answers.put(key, told.clone(), bytes, self.now());
                        return Some(told);
                    }
                    Err(error) => tracing::debug!(%room_id, %server, %error, "tells no room"),
                }
            }
            None
        };
        tokio::time::timeout(DEADLINE, ask).await.ok().flatten()
    }
}

#[derive(Deserialize)]
struct Answer {
    room: Value,
    #[serde(default)]
    children: Vec<Value>,
    #[serde(default)]
    inaccessible_children: Vec<Value>,
}

/// The answer about that room; entries that are malformed, or about rooms that are no children of
/// it, are left out.
fn read(answer: Value, room_id: &RoomId) -> Result<Told, RemoteError> {
    let wrong = |error: serde_json::Error| RemoteError::Misbehaved(error.to_string());
    let answer: Answer = serde_json::from_value(answer).map_err(wrong)?;
    let children = told_children(&answer.room["children_state"]);
    let summary: RoomSummary = serde_json::from_value(answer.room).map_err(wrong)?;
    if summary.room.room_id != room_id {
        return Err(RemoteError::Misbehaved("the answer is about another room".into()));
    }
    let is_child = |id: &RoomId| children.iter().any(|child| child.room_id == id);
    let listed = answer.children.into_iter().filter_map(|room| serde_json::from_value(room).ok());
    let inaccessible = answer.inaccessible_children.iter();
    let inaccessible = inaccessible.filter_map(|id| RoomId::parse(id.as_str()?).ok());
    Ok(Told {
        listed: listed.filter(|room: &RoomSummary| is_child(&room.room.room_id)).collect(),
        inaccessible: inaccessible.filter(|id| is_child(id)).collect(),
        summary,
        children,
    })
}
