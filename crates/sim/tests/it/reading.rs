//! What servers may read: spec-map 4.12, and the advisories about leaks.

use exeunt_core::ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use exeunt_room::{
    Preset, RoomError,
    inbound::{Admitted, LongAnswer, MAX_BACKFILL, MAX_MISSING_EVENTS, MissingEvents, Transaction},
    views::Direction,
};
use exeunt_sim::{Mesh, Server, events::member_draft, status};
use exeunt_store::records::Verdict;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A public room of ann on `a`, with bob of `b` joined; `c` is outside.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    Stage { mesh, room, ann, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    async fn entry(&self, server: &Server) -> Admitted {
        self.a().rooms.admit(&server.name, &self.room).await.unwrap()
    }

    async fn missing(&self, earliest: &[OwnedEventId], latest: &OwnedEventId) -> Vec<Value> {
        let (earliest, latest) = (earliest.to_vec(), vec![latest.clone()]);
        let wanted = MissingEvents { earliest, latest, ..MissingEvents::default() };
        let entry = self.entry(self.b()).await;
        let answer = self.a().rooms.missing_events_for_server(&entry, wanted).await.unwrap();
        answer["events"].as_array().unwrap().clone()
    }

    /// Every read, as one result for each, in a fixed order.
    async fn read_all(&self, by: &Server, id: &EventId) -> Vec<Result<Value, RoomError>> {
        let rooms = &self.a().rooms;
        let entry = self.entry(by).await;
        let wanted = MissingEvents { latest: vec![id.to_owned()], ..MissingEvents::default() };
        vec![
            whole(rooms.state_for_server(&entry, id).await).await,
            whole(rooms.state_ids_for_server(&entry, id).await).await,
            whole(rooms.event_auth_for_server(&entry, id).await).await,
            rooms.backfill_for_server(&entry, &[id.to_owned()], 10).await,
            rooms.missing_events_for_server(&entry, wanted).await,
            rooms.event_for_server(&by.name, id).await,
        ]
    }
}

async fn whole(answer: Result<LongAnswer, RoomError>) -> Result<Value, RoomError> {
    answer?.whole().await
}

fn check<T: std::fmt::Debug>(result: Result<T, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

fn bodies(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["content"]["body"].as_str().unwrap_or("-")).collect()
}

/// GHSA-qcjr-46gf-7f4r, CVE-2022-39335: who is not in the room reads nothing of it.
#[tokio::test]
async fn a_server_outside_reads_nothing() {
    let stage = stage().await;
    let said = stage.a().say(&stage.ann, &stage.room, "secret").await;
    let c = stage.mesh.server("c.example");
    for result in stage.read_all(c, &said).await {
        let (got, _) = status(result.expect_err("a refusal"));
        assert!(matches!(got, 403 | 404), "{got}");
    }
    for result in stage.read_all(stage.b(), &said).await {
        result.unwrap();
    }
    // Nor does one that was in it, of what came later.
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    let later = stage.a().say(&stage.ann, &stage.room, "later").await;
    for result in stage.read_all(stage.b(), &later).await {
        assert!(result.is_err());
    }
}

/// GHSA-27p5-4f45-gx76, CVE-2018-12291: ids of another room under the path of this one.
#[tokio::test]
async fn events_of_another_room_are_not_given_out() {
    let stage = stage().await;
    let other = stage.a().room(&stage.ann, Preset::Private, "12").await;
    let secret = stage.a().say(&stage.ann, &other, "secret").await;
    let after = stage.a().say(&stage.ann, &other, "after").await;
    for id in [&secret, &after] {
        for result in stage.read_all(stage.b(), id).await {
            match result {
                Ok(answer) => assert_eq!(answer, json!({ "events": [] })),
                Err(error) => assert_eq!(status(error).0, 404),
            }
        }
    }
    // Together with one of this room: still nothing of the other.
    let here = stage.a().say(&stage.ann, &stage.room, "here").await;
    let entry = stage.entry(stage.b()).await;
    let from = [here, after];
    let answer = stage.a().rooms.backfill_for_server(&entry, &from, 50).await.unwrap();
    let events = answer["pdus"].as_array().unwrap();
    let of_room =
        |event: &Value| event["type"] == "m.room.create" || event["room_id"] == stage.room.as_str();
    assert!(events.iter().all(of_room));
    assert!(!bodies(events).contains(&"after"));
}

#[tokio::test]
async fn unknown_things_are_404() {
    let stage = stage().await;
    let unknown = EventId::parse(format!("${}", "B".repeat(43))).unwrap();
    let results = stage.read_all(stage.b(), &unknown).await;
    for (index, result) in results.into_iter().enumerate() {
        match index {
            // get_missing_events has nothing to say of events that it does not know.
            4 => assert_eq!(result.unwrap(), json!({ "events": [] })),
            _ => check(result, 404, "M_NOT_FOUND"),
        }
    }
    let nowhere = RoomId::parse("!nowhere:a.example").unwrap();
    let entry = stage.a().rooms.admit(&stage.b().name, &nowhere).await.unwrap();
    check(stage.a().rooms.state_ids_for_server(&entry, &unknown).await, 404, "M_NOT_FOUND");
}

/// A rejected event is as good as unknown; a soft-failed one is given by /event only.
#[tokio::test]
async fn rejected_and_soft_failed_events() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let stranger = b.user("stranger");
    let rejected = b.sign(member_draft(a, &stage.room, &stranger, &stranger, "leave"));
    // Built before the ban: allowed by its past, not by the present.
    let mut late = member_draft(a, &stage.room, &stage.bob, &stage.bob, "join");
    late.content.insert("displayname".into(), "late".into());
    let late = b.sign(late);
    a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    let pdus = [&rejected, &late].map(|event| Value::Object(event.object().clone())).to_vec();
    let transaction = Transaction { pdus, edus: Vec::new() };
    a.rooms.receive_transaction(&b.name, "1", transaction).await.unwrap();
    let verdict = |id: &EventId| a.event(&id.to_owned()).unwrap().record.verdict.clone();
    assert!(matches!(verdict(rejected.event_id()), Verdict::Rejected(_)));
    assert!(matches!(verdict(late.event_id()), Verdict::SoftFailed(_)));
    let c = stage.mesh.server("c.example");
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    let results = stage.read_all(c, rejected.event_id()).await;
    for (index, result) in results.into_iter().enumerate() {
        match (index, result) {
            (3 | 4, Ok(answer)) => {
                assert!(!answer.to_string().contains(stranger.as_str()), "{index}");
            }
            (_, result) => check(result, 404, "M_NOT_FOUND"),
        }
    }
    let results = stage.read_all(c, late.event_id()).await;
    for (index, result) in results.into_iter().enumerate() {
        match index {
            0 | 1 => check(result, 404, "M_NOT_FOUND"),
            5 => assert_eq!(result.unwrap()["pdus"][0]["content"]["displayname"], "late"),
            _ => assert!(!result.unwrap().to_string().contains("late")),
        }
    }
}

/// History visibility: what its users could not see is given without content, or not at all.
/// continuwuity SEC26.
#[tokio::test]
async fn history_from_before_the_join_is_redacted() {
    for (visibility, invited_sees) in [("shared", true), ("invited", true), ("joined", false)] {
        let mesh = Mesh::new(&["a.example", "b.example"]);
        let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
        let (ann, bob) = (a.user("ann"), b.user("bob"));
        let rule = json!({ "history_visibility": visibility });
        let state = vec![("m.room.history_visibility", rule)];
        let room = a.room_with(&ann, Preset::Private, "12", state).await;
        let early = a.say(&ann, &room, "early").await;
        a.invite(&ann, &bob, &room).await.unwrap();
        let invited = a.say(&ann, &room, "invited").await;
        b.join(&bob, &room, a).await.unwrap();
        let late = a.say(&ann, &room, "late").await;
        let last = a.say(&ann, &room, "last").await;
        let stage = Stage { mesh, room, ann, bob };
        let (a, b) = (stage.a(), stage.b());
        let expected = |id: &OwnedEventId| match () {
            () if *id == late => true,
            () if *id == invited => invited_sees,
            () => visibility == "shared",
        };
        let entry = stage.entry(b).await;
        let answer =
            a.rooms.backfill_for_server(&entry, std::slice::from_ref(&last), 100).await.unwrap();
        let backfill = bodies(answer["pdus"].as_array().unwrap()).join(" ");
        let missing = stage.missing(&[], &last).await;
        let missing = bodies(&missing).join(" ");
        for (id, text) in [(&early, "early"), (&invited, "invited"), (&late, "late")] {
            assert_eq!(backfill.contains(text), expected(id), "{visibility} {text} by backfill");
            assert_eq!(missing.contains(text), expected(id), "{visibility} {text} by missing");
            let event = a.rooms.event_for_server(&b.name, id).await;
            match expected(id) {
                true => assert_eq!(event.unwrap()["pdus"][0]["content"]["body"], text),
                false => check(event, 404, "M_NOT_FOUND"),
            }
        }
    }
}

#[tokio::test]
async fn missing_events_lie_between() {
    let stage = stage().await;
    let mut ids = Vec::new();
    for text in ["0", "1", "2", "3", "4"] {
        ids.push(stage.a().say(&stage.ann, &stage.room, text).await);
    }
    assert_eq!(bodies(&stage.missing(&ids[..1], &ids[4]).await), ["1", "2", "3"]);
    assert_eq!(bodies(&stage.missing(&ids[3..4], &ids[4]).await), Vec::<&str>::new());
    let entry = stage.entry(stage.b()).await;
    let depth = stage.a().event(&ids[2]).unwrap().pdu.depth();
    for (limit, min_depth, expected) in
        [(Some(2), 0, vec!["2", "3"]), (None, depth, vec!["2", "3"]), (Some(0), 0, vec![])]
    {
        let (earliest, latest) = (Vec::new(), vec![ids[4].clone()]);
        let wanted = MissingEvents { earliest, latest, limit, min_depth };
        let answer = stage.a().rooms.missing_events_for_server(&entry, wanted).await.unwrap();
        assert_eq!(bodies(answer["events"].as_array().unwrap()), expected);
    }
}

#[tokio::test]
async fn backfill_includes_its_start_and_has_limits() {
    let stage = stage().await;
    let mut last = None;
    for index in 0..MAX_BACKFILL + 20 {
        last = Some(stage.a().say(&stage.ann, &stage.room, &index.to_string()).await);
    }
    let last = last.unwrap();
    let entry = stage.entry(stage.b()).await;
    let count = async |limit| {
        let from = [last.clone()];
        let answer = stage.a().rooms.backfill_for_server(&entry, &from, limit).await.unwrap();
        let events = answer["pdus"].as_array().unwrap().clone();
        assert_eq!(events[0]["content"]["body"], (MAX_BACKFILL + 19).to_string());
        events.len()
    };
    assert_eq!(count(5).await, 5);
    assert_eq!(count(usize::MAX).await, MAX_BACKFILL);
    let latest = vec![last.clone()];
    let wanted = MissingEvents { latest, limit: Some(usize::MAX), ..MissingEvents::default() };
    let answer = stage.a().rooms.missing_events_for_server(&entry, wanted).await.unwrap();
    assert_eq!(answer["events"].as_array().unwrap().len(), MAX_MISSING_EVENTS);
    let many = vec![last.clone(); 1000];
    check(stage.a().rooms.backfill_for_server(&entry, &many, 1).await, 400, "M_INVALID_PARAM");
}

/// The auth chain of the event and of nothing else (TestEventAuth).
#[tokio::test]
async fn event_auth_is_about_one_event() {
    let stage = stage().await;
    stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "x" })).await;
    let said = stage.a().say(&stage.ann, &stage.room, "x").await;
    let entry = stage.entry(stage.b()).await;
    let answer =
        stage.a().rooms.event_auth_for_server(&entry, &said).await.unwrap().whole().await.unwrap();
    let mut kinds: Vec<_> = answer["auth_chain"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| format!("{} {}", e["type"].as_str().unwrap(), e["sender"].as_str().unwrap()))
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["m.room.member @ann:a.example", "m.room.power_levels @ann:a.example"]);
}

#[tokio::test]
async fn state_is_that_before_the_event() {
    let stage = stage().await;
    let first =
        stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "1" })).await;
    let second =
        stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "2" })).await;
    let entry = stage.entry(stage.b()).await;
    let ids =
        stage.a().rooms.state_ids_for_server(&entry, &second).await.unwrap().whole().await.unwrap();
    let has = |id: &OwnedEventId| ids["pdu_ids"].as_array().unwrap().contains(&json!(id));
    assert!(has(&first) && !has(&second));
    let full =
        stage.a().rooms.state_for_server(&entry, &second).await.unwrap().whole().await.unwrap();
    let count = |answer: &Value, key: &str| answer[key].as_array().unwrap().len();
    assert_eq!(count(&full, "pdus"), count(&ids, "pdu_ids"));
    assert_eq!(count(&full, "auth_chain"), count(&ids, "auth_chain_ids"));
}

/// A server that joined later holds state without a place in its graph; it gives single events of
/// it to others who are in the room.
#[tokio::test]
async fn state_from_before_our_join_can_be_fetched() {
    let stage = stage().await;
    let create = stage.b().graph(&stage.room, |g| g.create().unwrap().event_id().to_owned());
    let event = stage.b().rooms.event_for_server(&stage.a().name, &create).await.unwrap();
    assert_eq!(event["pdus"][0]["type"], "m.room.create");
    let entry = stage.b().rooms.admit(&stage.a().name, &stage.room).await.unwrap();
    check(stage.b().rooms.state_ids_for_server(&entry, &create).await, 404, "M_NOT_FOUND");
}

/// CVE-2024-31208: a long chain of auth events, each resting on the one before, is walked once.
#[tokio::test]
async fn a_long_auth_chain_is_walked_event_by_event() {
    let stage = stage().await;
    let mut last = None;
    for index in 0..200 {
        let levels = json!({ "users": {}, "x": index });
        last = Some(stage.a().set(&stage.ann, &stage.room, "m.room.power_levels", levels).await);
    }
    let entry = stage.entry(stage.b()).await;
    let answer = stage
        .a()
        .rooms
        .event_auth_for_server(&entry, &last.unwrap())
        .await
        .unwrap()
        .whole()
        .await
        .unwrap();
    let chain = answer["auth_chain"].as_array().unwrap();
    // All earlier levels, and the creator's membership: each once.
    assert_eq!(chain.len(), 200 + 1);
}

/// GHSA-r66v-qhwx-8rg4: who is not in the room learns of no event by its date, and who is, of none
/// from before that they may not see.
#[tokio::test]
async fn dates_are_for_servers_in_the_room() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let visible = |state: &str| json!({ "history_visibility": state });
    let closed =
        vec![("m.room.history_visibility", visible("joined")), ("m.room.topic", json!({}))];
    let room = a.room_with(&stage.ann, Preset::Public, "12", closed).await;
    let early = a.say(&stage.ann, &room, "early").await;
    let entry = a.rooms.admit(&b.name, &room).await.unwrap();
    let ts = a.event(&early).unwrap().pdu.origin_server_ts();
    let ask = async |direction| a.rooms.timestamp_for_server(&entry, ts, direction).await;
    check(ask(Direction::Forward).await, 403, "M_FORBIDDEN");
    b.join(&stage.bob, &room, a).await.unwrap();
    stage.mesh.settle().await;
    // From before the room was closed there is its creation.
    let found = ask(Direction::Backward).await.unwrap();
    assert_ne!(found["event_id"], early.as_str());
    let found = ask(Direction::Forward).await.unwrap();
    assert_ne!(found["event_id"], early.as_str());
    let id = OwnedEventId::try_from(found["event_id"].as_str().unwrap()).unwrap();
    assert!(a.event(&id).unwrap().pdu.is_state("m.room.member", stage.bob.as_str()));
    let late = a.say(&stage.ann, &room, "late").await;
    let ts = a.event(&late).unwrap().pdu.origin_server_ts();
    for direction in [Direction::Forward, Direction::Backward] {
        let found = a.rooms.timestamp_for_server(&entry, ts, direction).await.unwrap();
        assert_eq!(found, json!({ "event_id": late, "origin_server_ts": ts }));
    }
    b.leave(&stage.bob, &room).await.unwrap();
    stage.mesh.settle().await;
    check(ask(Direction::Forward).await, 403, "M_FORBIDDEN");
}

/// `erase` of `POST /account/deactivate`: a server that was not in the room gets what the user sent
/// without its content, one that was gets it whole.
#[tokio::test]
async fn what_an_erased_user_sent_is_redacted_for_servers_that_came_later() {
    let stage = stage().await;
    stage.a().register("ann").await;
    let said = stage.a().say(&stage.ann, &stage.room, "secret").await;
    let after = stage.a().say(&stage.ann, &stage.room, "after").await;
    stage.mesh.settle().await;
    let c = stage.mesh.server("c.example");
    c.join(&c.user("cat"), &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    stage.a().users.deactivate(&stage.ann, true).await.unwrap();
    for (server, expected) in [(stage.b(), "secret"), (c, "-")] {
        let entry = stage.entry(server).await;
        let rooms = &stage.a().rooms;
        let wanted = MissingEvents { latest: vec![after.clone()], ..MissingEvents::default() };
        let missing = rooms.missing_events_for_server(&entry, wanted).await.unwrap();
        let missing = missing["events"].as_array().unwrap();
        assert_eq!(bodies(missing).last(), Some(&expected));
        let from = std::slice::from_ref(&said);
        for answer in [
            rooms.backfill_for_server(&entry, from, 1).await.unwrap(),
            rooms.event_for_server(&server.name, &said).await.unwrap(),
        ] {
            assert_eq!(bodies(answer["pdus"].as_array().unwrap()), [expected]);
        }
    }
}
