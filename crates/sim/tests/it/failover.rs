//! Joins over several servers, of which some are bad: spec-map 4.9, TestJoinFederatedRoomFailOver.

use std::time::Duration;

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_room::{Call, Preset, RemoteError, RoomError};
use exeunt_sim::{Mesh, Scripted, Server};
use tokio::time::Instant;

const BAD: [&str; 9] = ["d", "e", "f", "g", "h", "i", "j", "k", "l"];

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    bob: OwnedUserId,
    /// Bad servers, and then the only good one.
    via: Vec<OwnedServerName>,
}

/// A public room of ann on `a`; bob of `b` asks nine servers that are worth nothing before it.
async fn stage() -> Stage {
    let names: Vec<String> = BAD.map(|name| format!("{name}.example")).into();
    let all: Vec<&str> =
        ["a.example", "b.example"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let mesh = Mesh::new(&all);
    let a = mesh.server("a.example");
    let bob = mesh.server("b.example").user("bob");
    let room = a.room(&a.user("ann"), Preset::Public, "12").await;
    let via = names.iter().map(|name| mesh.server(name).name.clone());
    let via = via.chain([a.name.clone()]).collect();
    Stage { mesh, room, bob, via }
}

impl Stage {
    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn bad(&self) -> &[OwnedServerName] {
        &self.via[..BAD.len()]
    }

    async fn join(&self, via: &[OwnedServerName]) -> Result<(), RoomError> {
        self.b().rooms.join(&self.bob, &self.room, via, Object::new()).await
    }

    fn asked(&self) -> usize {
        let requests = self.mesh.net.take_requests();
        requests.iter().filter(|request| request.2 == "make_join").count()
    }
}

#[tokio::test(start_paused = true)]
async fn one_good_server_among_nine_that_are_silent() {
    let stage = stage().await;
    for server in stage.bad() {
        stage.mesh.net.script(server, |_| Scripted::Silent);
    }
    let start = Instant::now();
    stage.join(&stage.via).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("join"));
}

/// Each of them fails in another way, and at another step.
#[tokio::test]
async fn one_good_server_among_nine_that_fail() {
    let stage = stage().await;
    let fail = |server: &OwnedServerName, error: RemoteError| {
        stage.mesh.net.script(server, move |_| Scripted::Answer(Err(error.clone())));
    };
    let refused = |status, errcode: &str| RemoteError::Refused {
        status,
        errcode: errcode.into(),
        message: "no".into(),
    };
    fail(&stage.via[0], RemoteError::Unreachable("no such name".into()));
    fail(&stage.via[1], refused(404, "M_NOT_FOUND"));
    fail(&stage.via[2], refused(400, "M_UNABLE_TO_GRANT_JOIN"));
    fail(&stage.via[3], refused(401, "M_UNKNOWN_TOKEN"));
    fail(&stage.via[4], RemoteError::Misbehaved("not JSON".into()));
    fail(&stage.via[5], refused(502, ""));
    stage.mesh.net.script(&stage.via[6], |_| Scripted::Answer(Ok(serde_json::json!({}))));
    // These two know nothing of the room.
    assert!(stage.join(stage.bad()).await.is_err());
    assert_eq!(stage.asked(), BAD.len());
    let error = stage.join(stage.bad()).await.unwrap_err();
    let RoomError::EntryRefused { server, attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((server, attempts.len()), (&stage.via[1], BAD.len()));
    let servers: Vec<_> = attempts.iter().map(|attempt| attempt.server.clone()).collect();
    assert_eq!(servers, stage.bad());
    stage.asked();
    stage.join(&stage.via).await.unwrap();
    assert_eq!(stage.asked(), BAD.len() + 1);
}

/// A server that was slow is not forgotten when a faster one turns out to be bad.
#[tokio::test(start_paused = true)]
async fn a_slow_server_still_counts() {
    let stage = stage().await;
    let bad = stage.bad()[0].clone();
    stage.mesh.net.script(&bad, |call| match call {
        Call::Make(_) => Scripted::refused(403, "M_FORBIDDEN"),
        _ => Scripted::Silent,
    });
    let slow =
        exeunt_sim::Fault::meanwhile(|| Box::pin(tokio::time::sleep(exeunt_room::HEDGE_AFTER * 3)));
    let good = stage.via[BAD.len()].clone();
    stage.mesh.net.fail_next(&good, "make_join", slow);
    stage.join(&[good.clone(), bad]).await.unwrap();
    let joined = stage.mesh.net.take_requests();
    assert!(joined.iter().any(|(_, to, endpoint)| *to == good && *endpoint == "send_join"));
}

/// The server that a room is named after is asked where nobody else is known, and only then.
#[tokio::test]
async fn who_is_asked_where_nobody_is_named() {
    let stage = stage().await;
    let a = stage.mesh.server("a.example");
    let room = a.room(&a.user("ann"), Preset::Public, "11").await;
    let (b, dan) = (stage.b(), stage.b().user("dan"));
    let via = &stage.bad()[..1];
    assert!(b.rooms.join(&dan, &room, via, Object::new()).await.is_err());
    b.rooms.join(&dan, &room, std::slice::from_ref(&b.name), Object::new()).await.unwrap();
    // A room without a server in its name, that we were in: those that were there with us.
    stage.join(&stage.via[BAD.len()..]).await.unwrap();
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.join(&[]).await.unwrap();
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("join"));
}
