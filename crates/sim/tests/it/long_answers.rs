//! State and auth chains as they are given to other servers: piece by piece, and not too many at once.

use std::collections::BTreeSet;

use exeunt_core::{
    ruma::{OwnedEventId, OwnedRoomId},
    wire::federation,
};
use exeunt_fed_api::matrix_error;
use exeunt_room::{
    Preset, RoomError,
    inbound::{Admitted, MAX_LONG_ANSWERS_PER_ORIGIN},
};
use exeunt_sim::{Mesh, Server, status};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

/// Enough state for many pages.
const TOPICS: usize = 2_000;

/// A room of ann on `a` with much state, and bob of `b` in it.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    last: OwnedEventId,
}

impl Stage {
    async fn new() -> Self {
        let mesh = Mesh::new(&["a.example", "b.example"]);
        let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
        let ann = a.user("ann");
        let kinds: Vec<_> = (0..TOPICS).map(|index| format!("x.topic.{index}")).collect();
        let state = kinds.iter().map(|kind| (kind.as_str(), json!({ "text": "x".repeat(500) })));
        let room = a.room_with(&ann, Preset::Public, "12", state.collect()).await;
        b.join(&b.user("bob"), &room, a).await.unwrap();
        let last = a.say(&ann, &room, "hello").await;
        Self { mesh, room, last }
    }

    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    async fn entry(&self) -> Admitted {
        self.a().rooms.admit(&self.b().name, &self.room).await.unwrap()
    }
}

#[tokio::test]
async fn a_large_state_is_told_whole_and_in_pieces() {
    let stage = Stage::new().await;
    let (a, b, entry) = (stage.a(), stage.b(), stage.entry().await);
    let ids: BTreeSet<_> = a.state(&stage.room).into_iter().map(|(.., id)| id).collect();
    assert!(ids.len() > TOPICS);
    assert_eq!(b.state(&stage.room).len(), ids.len(), "it was joined with all of it");

    let answer = a.rooms.state_for_server(&entry, &stage.last).await.unwrap();
    let pieces: Vec<_> = answer.into_stream().try_collect().await.unwrap();
    assert!(pieces.len() > 3, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|piece| piece.len() < 300_000));
    let answer: Value = serde_json::from_slice(&pieces.concat()).unwrap();
    let texts = |list: &Value| -> BTreeSet<_> {
        list.as_array().unwrap().iter().map(ToString::to_string).collect()
    };
    let event = |id: &OwnedEventId| federation(&a.event(id).unwrap().pdu).to_string();
    assert_eq!(answer["pdus"].as_array().unwrap().len(), ids.len());
    assert_eq!(texts(&answer["pdus"]), ids.iter().map(event).collect());

    let listed = a.rooms.state_ids_for_server(&entry, &stage.last).await.unwrap();
    let listed = listed.whole().await.unwrap();
    assert_eq!(texts(&listed["pdu_ids"]), ids.iter().map(|id| json!(id).to_string()).collect());
    let chain = listed["auth_chain_ids"].as_array().unwrap().iter();
    let chain = chain.map(|id| OwnedEventId::try_from(id.as_str().unwrap()).unwrap());
    assert_eq!(texts(&answer["auth_chain"]), chain.map(|id| event(&id)).collect());
}

/// Nothing is read ahead: what a purge takes in the meantime is missing, and the answer has no end.
#[tokio::test]
async fn a_purge_ends_an_answer_that_is_under_way() {
    let stage = Stage::new().await;
    let a = stage.a();
    let answer = a.rooms.state_for_server(&stage.entry().await, &stage.last).await;
    let mut pieces = Box::pin(answer.unwrap().into_stream());
    pieces.next().await.unwrap().unwrap();
    a.leave(&a.user("ann"), &stage.room).await.unwrap();
    exeunt_store::purge_room(&a.store, &stage.room).await.unwrap();
    let outcome = pieces.next().await.unwrap().map_err(matrix_error);
    assert_eq!(outcome.unwrap_err().status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_server_has_few_answers_under_way_and_the_others_their_own() {
    let stage = Stage::new().await;
    let (a, entry) = (stage.a(), stage.entry().await);
    let ask = || a.rooms.state_for_server(&entry, &stage.last);
    let mut held = Vec::new();
    for _ in 0..MAX_LONG_ANSWERS_PER_ORIGIN {
        held.push(ask().await.unwrap());
    }
    let refused = ask().await.unwrap_err();
    assert!(matches!(refused, RoomError::Busy));
    let refused = matrix_error(refused);
    assert_eq!((refused.status, refused.errcode.as_str()), (429, "M_LIMIT_EXCEEDED"));
    assert!(refused.extra["retry_after_ms"].is_u64());
    let auth = a.rooms.event_auth_for_server(&entry, &stage.last).await;
    assert_eq!(status(auth.unwrap_err()).0, 429);
    let ours = a.rooms.admit(&a.name, &stage.room).await.unwrap();
    a.rooms.state_for_server(&ours, &stage.last).await.unwrap();

    // One that is given up halfway makes room, like one that is taken to its end.
    let mut halfway = Box::pin(held.pop().unwrap().into_stream());
    halfway.next().await.unwrap().unwrap();
    ask().await.unwrap_err();
    drop(halfway);
    ask().await.unwrap().whole().await.unwrap();
    ask().await.unwrap();
}
