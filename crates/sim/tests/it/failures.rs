//! The failure matrix: every way in which another server can fail, at every step of a handshake,
//! and what the user and the outbox have of it. What only HTTP knows apart is shown by the tests
//! of `exeunt-fed-client`; here stands what it maps to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use exeunt_core::{
    Pdu,
    ruma::{OwnedRoomId, OwnedUserId},
};
use exeunt_membership::SendApi;
use exeunt_room::{
    Call, Preset, RemoteError, RoomError,
    leave::{RACE_WINDOW_MS, REJOIN_WITHIN_MS},
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Fault, Mesh, Scripted, Server};
use exeunt_store::{records::DepartureRecord, tables};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How a server fails.
#[derive(Clone, Copy)]
enum Failing {
    /// It is known at once that there will be no answer.
    Unreachable,
    /// No answer within the time that the HTTP client gives it.
    Silent,
    Misbehaved,
    Refused(u16, &'static str),
    /// An answer, but not the one that was asked for.
    Answers(fn(&mut Value)),
}

use Failing::{Answers, Misbehaved, Refused, Silent, Unreachable};

/// The fault, the test of `exeunt-fed-client` (or of `exeunt-server`'s adapters) that shows what it
/// maps to where HTTP is needed to tell, and what it maps to.
const FAULTS: [(&str, &str, Failing); 20] = [
    ("unknown name", "discovery: servers_that_cannot_be_found", Unreachable),
    ("refused connection", "requests: a_refused_connection_is_unreachable", Unreachable),
    ("TLS error", "requests: bad_certificates_are_explained", Unreachable),
    ("black hole", "requests: a_hanging_server_times_out", Silent),
    ("redirect", "requests: a_redirect_is_not_followed", Misbehaved),
    ("401", "", Refused(401, "M_UNAUTHORIZED")),
    ("403", "", Refused(403, "M_FORBIDDEN")),
    ("404", "", Refused(404, "M_NOT_FOUND")),
    ("429", "", Refused(429, "M_LIMIT_EXCEEDED")),
    ("500", "", Refused(500, "M_UNKNOWN")),
    ("502 of a gateway", "requests: errors_are_refusals_with_bounded_clean_text", Unreachable),
    ("HTML", "requests: a_web_page_misbehaves", Misbehaved),
    ("garbage", "", Answers(garbage)),
    ("a body cut short", "requests: a_body_cut_short_is_unreachable", Unreachable),
    ("slow drip", "requests: a_dripping_server_times_out", Silent),
    ("1 GB body", "requests: long_bodies_are_cut_off", Misbehaved),
    ("wrong room", "", Answers(wrong_room)),
    ("wrong user", "", Answers(wrong_user)),
    ("wrong version", "", Answers(wrong_version)),
    ("signed by another", "", Answers(signed_by_another)),
];

fn garbage(answer: &mut Value) {
    *answer = json!(["garbage", { "event": 1 }, null]);
}

/// The answer itself, which version 1 of an endpoint wraps as `[200, …]`.
fn unwrapped(answer: &mut Value) -> &mut Value {
    match answer {
        Value::Array(pair) => &mut pair[1],
        other => other,
    }
}

/// Changes a template or, of a room's state, every event.
fn each_event(answer: &mut Value, change: impl Fn(&mut Value)) {
    let Value::Object(answer) = unwrapped(answer) else { return };
    for (key, value) in answer {
        match (key.as_str(), value) {
            ("event", event) => change(event),
            ("state" | "auth_chain", Value::Array(events)) => events.iter_mut().for_each(&change),
            _ => {}
        }
    }
}

fn wrong_room(answer: &mut Value) {
    each_event(answer, |event| event["room_id"] = json!("!other:a.example"));
}

fn wrong_user(answer: &mut Value) {
    each_event(answer, |event| {
        event["sender"] = json!("@eve:b.example");
        event["state_key"] = json!("@eve:b.example");
    });
}

fn wrong_version(answer: &mut Value) {
    unwrapped(answer)["room_version"] = json!("1");
    each_event(answer, |event| {
        if event["type"] == "m.room.create" {
            event["content"]["room_version"] = json!("1");
        }
    });
}

fn signed_by_another(answer: &mut Value) {
    each_event(answer, |event| {
        event["signatures"] = json!({ "c.example": { "ed25519:sim": "A".repeat(86) } });
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Make,
    SendV2,
    /// After the server has said that it has no version 2.
    SendV1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Reject,
    Retract,
    Join,
    Knock,
}

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    /// Whether the server of the room fails.
    failing: Arc<AtomicBool>,
    /// What it was sent.
    sent: Arc<Mutex<Vec<Pdu>>>,
}

/// Ann's room on `a`, whose server will fail bob's (b) at that step.
async fn stage(action: Action, step: Step, fault: Failing) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let (preset, rule) = match action {
        Action::Join => (Preset::Public, "public"),
        _ => (Preset::Private, "knock"),
    };
    let room = a.room(&ann, preset, "11").await;
    a.set(&ann, &room, "m.room.join_rules", json!({ "join_rule": rule })).await;
    match action {
        Action::Reject => a.invite(&ann, &bob, &room).await.unwrap(),
        Action::Retract => {
            let via = std::slice::from_ref(&a.name);
            b.rooms.knock(&bob, &room, via, Default::default()).await.unwrap();
        }
        Action::Join | Action::Knock => {}
    }
    // A refusal of a fresh invite may be that of a server that has not placed it yet.
    mesh.clock.advance(RACE_WINDOW_MS);
    let failing = Arc::new(AtomicBool::new(true));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (fails, seen) = (Arc::clone(&failing), Arc::clone(&sent));
    mesh.net.script(&a.name, move |call| {
        if let Call::Send(request) = call {
            seen.lock().unwrap().push(request.event.pdu().clone());
        }
        if !fails.load(Ordering::SeqCst) {
            return Scripted::Honest;
        }
        let here = match call {
            Call::Make(_) => step == Step::Make,
            Call::Send(request) => match (step, request.api) {
                (Step::SendV1, SendApi::V2) => return Scripted::refused(404, "M_UNRECOGNIZED"),
                (Step::SendV2, SendApi::V2) | (Step::SendV1, SendApi::V1) => true,
                _ => false,
            },
            _ => false,
        };
        match fault {
            _ if !here => Scripted::Honest,
            Unreachable => Scripted::Answer(Err(RemoteError::Unreachable("no way there".into()))),
            Misbehaved => Scripted::Answer(Err(RemoteError::Misbehaved("not JSON".into()))),
            Silent => Scripted::Silent,
            Refused(status, errcode) => Scripted::refused(status, errcode),
            Answers(_) => Scripted::Honest,
        }
    });
    if let Answers(change) = fault {
        let endpoint = match (action, step) {
            (Action::Join, Step::Make) => "make_join",
            (Action::Join, _) => "send_join",
            (Action::Knock, Step::Make) => "make_knock",
            (Action::Knock, _) => "send_knock",
            (_, Step::Make) => "make_leave",
            (_, _) => "send_leave",
        };
        if step == Step::SendV1 && action != Action::Knock {
            // Spent by version 2.
            mesh.net.fail_next(&a.name, endpoint, Fault::tampered(|_| {}));
        }
        mesh.net.fail_next(&a.name, endpoint, Fault::tampered(change));
    }
    Stage { mesh, room, ann, bob, failing, sent }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    /// The section of `/sync` in which the room is for a device that has seen everything up to
    /// there, or nothing.
    async fn section(&self, since: Option<u64>) -> Option<&'static str> {
        let request = SyncRequest {
            viewer: self.b().rooms.viewer(&self.bob, None),
            since,
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        };
        let view = self.b().rooms.sync(request).await.unwrap();
        let of = |there: bool, name| there.then_some(name);
        of(view.join.contains_key(&self.room), "join")
            .or(of(view.invite.contains_key(&self.room), "invite"))
            .or(of(view.knock.contains_key(&self.room), "knock"))
            .or(of(view.leave.contains_key(&self.room), "leave"))
    }

    /// The outbox of departures: it has bob's and nobody else's.
    fn departures(&self, case: &str) -> Vec<DepartureRecord> {
        let rows = self.b().store.reader().scan::<tables::Departures>(()).collect().unwrap();
        let rows = rows.into_iter().map(|(key, row)| {
            assert_eq!(key, (self.bob.clone(), self.room.clone()), "{case}");
            row
        });
        rows.collect()
    }

    /// What waits is to be taken to `a`, and says what `a` said if it has said anything.
    fn assert_waits(&self, waits: bool, tried: bool, case: &str) {
        let rows = self.departures(case);
        assert_eq!(rows.len(), usize::from(waits), "{case}");
        for row in rows {
            assert_eq!(row.candidates, [self.a().name.clone()], "{case}");
            assert_eq!(row.last.len(), usize::from(tried), "{case}: {:?}", row.last);
            for said in row.last {
                assert_eq!(said.server, self.a().name, "{case}");
                assert!(said.outcome.contains("_leave"), "{case}: {said:?}");
            }
        }
    }

    /// All that was signed for `a` is what bob wanted, and it is in the journal.
    fn assert_signed_only(&self, membership: &str, case: &str) {
        for event in self.sent.lock().unwrap().iter() {
            assert_eq!(event.room_id(), self.room, "{case}");
            assert_eq!(event.sender(), self.bob, "{case}");
            assert_eq!(event.state_key(), Some(self.bob.as_str()), "{case}");
            assert_eq!(event.membership(), Some(membership), "{case}");
            assert!(!self.b().signed_as(event).is_empty(), "{case}: not journaled");
        }
        let journal = self.b().store.reader().scan::<tables::SigningJournal>(()).collect();
        let sent: Vec<_> =
            self.sent.lock().unwrap().iter().map(|event| event.event_id().to_owned()).collect();
        for (_, row) in journal.unwrap() {
            let ours = ["out-of-band leave", "invite", "knock"].contains(&row.purpose.as_str());
            assert!(ours || sent.contains(&row.event_id), "{case}: {row:?} was never sent");
        }
    }
}

/// Whether a departure is at its end after that failure.
fn ends_departure(step: Step, fault: Failing) -> bool {
    match (fault, step) {
        // The invite is gone, says every server. One that has just made a template for the leave, and
        // will not have it, may have changed since: it is asked again.
        (Refused(403 | 404, "M_FORBIDDEN" | "M_NOT_FOUND"), Step::Make) => true,
        // The answer to a leave says nothing that would count.
        (Answers(_), Step::SendV2 | Step::SendV1) => true,
        // Signatures in a template are not looked at, for it is thrown away.
        (Answers(change), Step::Make) => {
            std::ptr::fn_addr_eq(change, signed_by_another as fn(&mut Value))
        }
        _ => false,
    }
}

/// Rejections and retractions: the client has its answer within two seconds, every device sees the
/// user out, and the outbox has the departure until the room knows.
#[tokio::test(start_paused = true)]
async fn departures() {
    for action in [Action::Reject, Action::Retract] {
        for step in [Step::Make, Step::SendV2, Step::SendV1] {
            for (name, _, fault) in FAULTS {
                let case = format!("{action:?}, {step:?}: {name}");
                let stage = stage(action, step, fault).await;
                let before = stage.b().store.reader().position().unwrap();
                let began = Instant::now();
                stage.b().leave(&stage.bob, &stage.room).await.expect(&case);
                assert!(began.elapsed() <= Duration::from_millis(2_001), "{case}");

                for since in [Some(1), Some(before)] {
                    assert_eq!(stage.section(since).await, Some("leave"), "{case}");
                }
                let fresh = stage.section(None).await;
                assert!(matches!(fresh, None | Some("leave")), "{case}: {fresh:?}");
                let waits = !ends_departure(step, fault);
                stage.assert_waits(waits, !matches!(fault, Silent), &case);

                // The attempt that the client did not wait for comes to its end.
                tokio::time::sleep(Duration::from_secs(600)).await;
                stage.assert_waits(waits, true, &case);
                stage.failing.store(false, Ordering::SeqCst);
                stage.mesh.settle().await;
                stage.assert_waits(false, true, &case);
                let there = stage.a().in_state(&stage.bob, &stage.room);
                let told = waits || matches!(fault, Answers(_));
                assert_eq!(there.as_deref() == Some("leave"), told, "{case}: {there:?}");
                stage.assert_signed_only("leave", &case);
            }
        }
    }
}

/// Whether the client's request succeeds all the same.
fn succeeds(action: Action, step: Step, fault: Failing) -> bool {
    let Answers(change) = fault else { return false };
    match step {
        Step::Make => std::ptr::fn_addr_eq(change, signed_by_another as fn(&mut Value)),
        // The knock is there; of the answer the room's state is shown, as far as it can be.
        _ => action == Action::Knock,
    }
}

/// How long the client waits at most: a server that says nothing has the time that a request of its
/// kind is given, and nobody else can be asked.
fn patience(action: Action, step: Step, fault: Failing) -> Duration {
    Duration::from_secs(match (fault, action, step) {
        (Silent, Action::Join, Step::SendV2 | Step::SendV1) => 300,
        (Silent, ..) => 10,
        _ => 0,
    })
}

/// Whether the server may have what it was sent, for it did not refuse it.
fn may_have_it(step: Step, fault: Failing) -> bool {
    step != Step::Make && !matches!(fault, Refused(400..500, _))
}

/// Joins and knocks: where the server fails, the client is told so, and nothing is left of it but
/// for what the server may have taken, which is taken back.
#[tokio::test(start_paused = true)]
async fn entries() {
    for action in [Action::Join, Action::Knock] {
        for step in [Step::Make, Step::SendV2, Step::SendV1] {
            if (action, step) == (Action::Knock, Step::SendV2) {
                // send_knock has one version only.
                continue;
            }
            for (name, _, fault) in FAULTS {
                let case = format!("{action:?}, {step:?}: {name}");
                let stage = stage(action, step, fault).await;
                let via = std::slice::from_ref(&stage.a().name);
                let (rooms, bob, room) = (&stage.b().rooms, &stage.bob, &stage.room);
                let before = stage.b().store.reader().position().unwrap();
                let began = Instant::now();
                let outcome: Result<(), RoomError> = match action {
                    Action::Join => rooms.join(bob, room, via, Default::default()).await,
                    _ => rooms.knock(bob, room, via, Default::default()).await,
                };
                let waited = began.elapsed().checked_sub(patience(action, step, fault));
                let waited = waited.expect(&case);
                assert!(waited <= Duration::from_secs(2), "{case}: {waited:?}");
                assert_eq!(outcome.is_ok(), succeeds(action, step, fault), "{case}: {outcome:?}");
                let left_over = outcome.is_err() && may_have_it(step, fault);
                stage.assert_waits(left_over, false, &case);
                let (wanted, section) = match action {
                    Action::Join => ("join", "join"),
                    _ => ("knock", "knock"),
                };
                let expected = outcome.is_ok().then_some(section);
                for since in [None, Some(before)] {
                    assert_eq!(stage.section(since).await, expected, "{case}");
                }
                let sent = stage.sent.lock().unwrap().clone();
                for event in sent.iter().filter(|event| event.membership() == Some(wanted)) {
                    assert!(!stage.b().signed_as(event).is_empty(), "{case}: not journaled");
                }
                for event in &sent {
                    assert_eq!((event.room_id(), event.sender()), (&**room, &**bob), "{case}");
                    assert_eq!(event.state_key(), Some(bob.as_str()), "{case}");
                }
                // In the end the room shows what the user knows.
                stage.failing.store(false, Ordering::SeqCst);
                stage.mesh.clock.advance(REJOIN_WITHIN_MS);
                stage.mesh.settle().await;
                stage.mesh.clock.advance(RACE_WINDOW_MS);
                stage.mesh.settle().await;
                stage.assert_waits(false, true, &case);
                let there = stage.a().in_state(&stage.bob, &stage.room);
                let there = there.filter(|membership| membership != "leave");
                assert_eq!(there.as_deref(), outcome.is_ok().then_some(wanted), "{case}");
            }
        }
    }
}

/// A leave of a room that we are in is an event of ours: no failure of others delays it, and it
/// waits in the outbox of each server until that takes it.
#[tokio::test(start_paused = true)]
async fn leaves_of_residents() {
    for (name, _, fault) in FAULTS {
        let error = match fault {
            Unreachable | Silent => RemoteError::Unreachable("no way there".into()),
            Misbehaved | Answers(_) => RemoteError::Misbehaved("not JSON".into()),
            Refused(status, errcode) => {
                RemoteError::Refused { status, errcode: errcode.into(), message: "scripted".into() }
            }
        };
        let stage = stage(Action::Join, Step::Make, Answers(|_| {})).await;
        stage.failing.store(false, Ordering::SeqCst);
        stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
        stage.mesh.settle().await;
        stage.mesh.net.fail_next(&stage.a().name, "send", Fault::Answer(error));
        let began = Instant::now();
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(2), "{name}");
        for since in [Some(1), Some(stage.b().store.reader().position().unwrap() - 1)] {
            assert_eq!(stage.section(since).await, Some("leave"), "{name}");
        }
        assert_eq!(stage.section(None).await, None, "{name}");
        assert_eq!(stage.b().outbox(stage.a()).len(), 1, "{name}");
        stage.mesh.settle().await;
        stage.mesh.settle().await;
        assert_eq!(stage.b().outbox(stage.a()).len(), 0, "{name}");
        assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"), "{name}");
        assert_eq!(stage.a().in_state(&stage.ann, &stage.room).as_deref(), Some("join"), "{name}");
    }
}
