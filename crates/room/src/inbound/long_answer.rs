//! Answers that may be long: the state of a room, an auth chain. What they list is read from the
//! store page by page while the answer is taken, so that neither a large room nor a slow server costs
//! memory or holds a snapshot. Events never change, so pages of different times fit together.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
    vec,
};

use exeunt_core::wire::federation;
use exeunt_store::{Reader, Store};
use futures_util::{Stream, stream};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{RoomError, Rooms, graph::load_event};

/// Most long answers to one server that are under way: gathered, or not taken to their end yet.
pub const MAX_LONG_ANSWERS_PER_ORIGIN: usize = 2;
/// Most of them in all.
pub const MAX_LONG_ANSWERS: usize = 16;
/// Most requests of one server that wait for their turn or have it. Beyond, they are refused.
pub const MAX_LONG_REQUESTS_PER_ORIGIN: usize = 20;
/// How long a request waits for its turn: well below the minute that Synapse waits for an answer. It
/// asks again after a refusal, but a few times and within seconds only.
pub const LONG_ANSWER_WAIT: Duration = Duration::from_secs(20);

/// A piece of an answer ends after so many bytes, or with the event that goes beyond.
const PIECE_BYTES: usize = 256 * 1024;
/// Most events that are read at a time; so many rows the store reads at once.
const PAGE_EVENTS: usize = 200;

/// A field of a long answer.
pub(super) enum Field {
    Value(Value),
    Ids(Vec<OwnedEventId>),
    /// In federation form.
    Events(Vec<OwnedEventId>),
}

/// The fields of an answer by name.
pub(super) type Fields = Vec<(&'static str, Field)>;

/// A JSON object whose events are read when their turn comes.
pub struct LongAnswer {
    store: Store,
    room_id: OwnedRoomId,
    parts: VecDeque<Part>,
    _turn: Turn,
}

impl fmt::Debug for LongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongAnswer").field("room_id", &self.room_id).finish_non_exhaustive()
    }
}

enum Part {
    Text(String),
    List { ids: vec::IntoIter<OwnedEventId>, as_events: bool },
}

impl LongAnswer {
    /// The form of the old versions of `send_join`: within an array, after a status.
    pub fn after_status(mut self) -> Self {
        self.parts.push_front(Part::Text("[200,".into()));
        self.parts.push_back(Part::Text("]".into()));
        self
    }

    /// The answer in pieces. It ends with an error if an event is not there any more: the room was
    /// purged meanwhile.
    pub fn into_stream(self) -> impl Stream<Item = Result<Vec<u8>, RoomError>> {
        stream::try_unfold(self, async |mut answer| {
            let piece = answer.piece().await?;
            Ok((!piece.is_empty()).then_some((piece, answer)))
        })
    }

    /// The answer as one value.
    pub async fn whole(mut self) -> Result<Value, RoomError> {
        let mut bytes = Vec::new();
        loop {
            let piece = self.piece().await?;
            if piece.is_empty() {
                return Ok(serde_json::from_slice(&bytes).expect("an answer is JSON"));
            }
            bytes.extend(piece);
        }
    }

    /// The next piece, empty at the end.
    async fn piece(&mut self) -> Result<Vec<u8>, RoomError> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES
            && let Some(part) = self.parts.pop_front()
        {
            match part {
                Part::Text(text) => piece.extend(text.into_bytes()),
                Part::List { mut ids, as_events } => {
                    let page = ids.as_slice().iter().take(PAGE_EVENTS).cloned().collect();
                    let (written, count) = match as_events {
                        true => self.events(page, PIECE_BYTES - piece.len()).await?,
                        false => listed(page),
                    };
                    piece.extend(written);
                    ids.by_ref().take(count).for_each(drop);
                    if ids.len() > 0 {
                        piece.push(b',');
                        self.parts.push_front(Part::List { ids, as_events });
                    }
                }
            }
        }
        Ok(piece)
    }

    /// The first of these events, as many as it takes to fill so many bytes, and how many those are.
    async fn events(
        &self,
        ids: Vec<OwnedEventId>,
        bytes: usize,
    ) -> Result<(Vec<u8>, usize), RoomError> {
        let room_id = self.room_id.clone();
        self.store.read(move |reader| write_events(reader, &room_id, &ids, bytes)).await
    }
}

fn write_events(
    reader: &Reader<'_>,
    room_id: &RoomId,
    ids: &[OwnedEventId],
    bytes: usize,
) -> Result<(Vec<u8>, usize), RoomError> {
    let mut written = Vec::new();
    let mut count = 0;
    for id in ids {
        let known = load_event(reader, id)?.filter(|known| known.pdu.room_id() == room_id);
        let gone = || RoomError::NotFound("The room is not here any more".into());
        let event = federation(&known.ok_or_else(gone)?.pdu);
        written.extend(event.to_string().into_bytes());
        count += 1;
        if written.len() >= bytes {
            break;
        }
        written.push(b',');
    }
    if written.last() == Some(&b',') {
        written.pop();
    }
    Ok((written, count))
}

fn listed(ids: Vec<OwnedEventId>) -> (Vec<u8>, usize) {
    let quoted: Vec<_> = ids.iter().map(|id| Value::from(id.as_str()).to_string()).collect();
    (quoted.join(",").into_bytes(), ids.len())
}

fn parts(fields: Fields) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let mut before = "{";
    for (name, field) in fields {
        parts.push_back(Part::Text(format!("{before}\"{name}\":")));
        match field {
            Field::Value(value) => parts.push_back(Part::Text(value.to_string())),
            Field::Ids(ids) => parts.extend(list(ids, false)),
            Field::Events(ids) => parts.extend(list(ids, true)),
        }
        before = ",";
    }
    parts.push_back(Part::Text("}".into()));
    parts
}

fn list(ids: Vec<OwnedEventId>, as_events: bool) -> [Part; 3] {
    let list = Part::List { ids: ids.into_iter(), as_events };
    [Part::Text("[".into()), list, Part::Text("]".into())]
}

/// The long answers under way, by the servers that they are for.
pub(crate) struct LongAnswers {
    all: Arc<Semaphore>,
    origins: Mutex<BTreeMap<OwnedServerName, Arc<Semaphore>>>,
}

/// The right to gather a long answer, and to keep it until it is taken.
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for LongAnswers {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_LONG_ANSWERS)), origins: Mutex::default() }
    }
}

impl LongAnswers {
    /// Waits for a turn of that server.
    async fn turn(&self, origin: &ServerName) -> Result<Turn, RoomError> {
        let own = self.enqueue(origin)?;
        let turns = async {
            let own = own.acquire_owned().await.ok()?;
            Some(Turn { _own: own, _of_all: self.all.clone().acquire_owned().await.ok()? })
        };
        timeout(LONG_ANSWER_WAIT, turns).await.ok().flatten().ok_or(RoomError::Busy)
    }

    /// The turns of a server, unless many wait for them. Whoever waits or has one holds a reference.
    fn enqueue(&self, origin: &ServerName) -> Result<Arc<Semaphore>, RoomError> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = origins
            .entry(origin.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_LONG_ANSWERS_PER_ORIGIN)));
        if Arc::strong_count(turns) > MAX_LONG_REQUESTS_PER_ORIGIN {
            return Err(RoomError::Busy);
        }
        Ok(turns.clone())
    }
}

impl Rooms {
    /// Waits until a long answer to the server may be gathered; `Busy` if that takes long.
    pub(super) async fn long_turn(&self, origin: &ServerName) -> Result<Turn, RoomError> {
        self.inner.long_answers.turn(origin).await
    }

    /// Gathers what a long answer about a room says, without its events.
    pub(super) async fn long_answer(
        &self,
        turn: Turn,
        room_id: &RoomId,
        gather: impl FnOnce(&Reader<'_>) -> Result<Fields, RoomError> + Clone + Send + 'static,
    ) -> Result<LongAnswer, RoomError> {
        let parts = parts(self.store().read(gather).await?);
        let (store, room_id) = (self.store().clone(), room_id.to_owned());
        Ok(LongAnswer { store, room_id, parts, _turn: turn })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use ruma::server_name;

    use super::*;

    #[tokio::test]
    async fn turns_are_bounded_by_server_and_in_all() {
        let answers = LongAnswers::default();
        let x = server_name!("x");
        let mut turns: Vec<_> = (0..MAX_LONG_ANSWERS_PER_ORIGIN)
            .map(|_| answers.turn(x).now_or_never().expect("a turn").unwrap())
            .collect();
        let mut next = Box::pin(answers.turn(x));
        assert!(next.as_mut().now_or_never().is_none());
        let other = answers.turn(server_name!("y")).now_or_never();
        assert!(other.is_some_and(|turn| turn.is_ok()));
        turns.pop();
        assert!(next.now_or_never().is_some_and(|turn| turn.is_ok()));

        for server in 0..MAX_LONG_ANSWERS - turns.len() {
            let server = OwnedServerName::try_from(format!("s{server}")).unwrap();
            turns.push(answers.turn(&server).now_or_never().expect("a turn").unwrap());
        }
        assert!(answers.turn(server_name!("y")).now_or_never().is_none());
        turns.clear();
        assert!(answers.turn(server_name!("y")).now_or_never().is_some());
        assert_eq!(answers.origins.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_too() {
        let answers = LongAnswers::default();
        let x = server_name!("x");
        let mut waiting = Vec::new();
        for _ in 0..MAX_LONG_REQUESTS_PER_ORIGIN {
            let mut turn = Box::pin(answers.turn(x));
            let turned = turn.as_mut().now_or_never();
            waiting.push((turn, turned));
        }
        let refused = answers.turn(x).now_or_never();
        assert!(matches!(refused, Some(Err(RoomError::Busy))));
        waiting.clear();
        assert!(answers.turn(x).now_or_never().is_some_and(|turn| turn.is_ok()));
    }
}
