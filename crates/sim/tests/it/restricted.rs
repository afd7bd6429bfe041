//! Joins into restricted rooms, of our users and of others': MSC3083, MSC3787, spec-map 4.9.

use std::time::Duration;

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use exeunt_room::{Preset, RoomError};
use exeunt_sim::{Fault, Mesh, Server, events::object, status};
use serde_json::{Value, json};

const KINDS: [(&str, &str); 5] = [
    ("8", "restricted"),
    ("10", "knock_restricted"),
    ("11", "restricted"),
    ("12", "restricted"),
    ("12", "knock_restricted"),
];

struct Stage {
    mesh: Mesh,
    /// Those who are in it may join the club.
    lobby: OwnedRoomId,
    club: OwnedRoomId,
    ann: OwnedUserId,
}

/// Both rooms are ann's, on `a`.
async fn stage(version: &str, join_rule: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let a = mesh.server("a.example");
    let ann = a.user("ann");
    let lobby = a.room(&ann, Preset::Public, version).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": lobby }]);
    let rules = json!({ "join_rule": join_rule, "allow": allow });
    let state = vec![("m.room.join_rules", rules)];
    let club = a.room_with(&ann, Preset::Public, version, state).await;
    Stage { mesh, lobby, club, ann }
}

impl Stage {
    fn servers(&self) -> [&Server; 3] {
        ["a.example", "b.example", "c.example"].map(|name| self.mesh.server(name))
    }

    async fn joins(&self, user: &UserId, room: &RoomId, via: &[&Server]) -> Result<(), RoomError> {
        let via: Vec<OwnedServerName> = via.iter().map(|server| server.name.clone()).collect();
        let own = self.mesh.server(user.server_name().as_str());
        let joined = own.rooms.join(user, room, &via, Object::new()).await;
        self.mesh.settle().await;
        joined
    }

    /// Who vouched for the user, as each server in the club has it.
    fn authorisers(&self, user: &UserId, servers: &[&Server]) -> Vec<Option<String>> {
        let of = |server: &&Server| {
            server.graph(&self.club, |graph| {
                let event = graph.current("m.room.member", user.as_str()).unwrap().unwrap();
                assert_eq!(event.membership(), Some("join"));
                event.content_str("join_authorised_via_users_server").map(str::to_owned)
            })
        };
        servers.iter().map(of).collect()
    }

    /// Only those listed may invite; the creator of a room of version 12 always may.
    async fn let_invite(&self, users: &[&UserId]) {
        let mut listed = Object::new();
        for user in users {
            listed.insert(user.to_string(), 100.into());
        }
        if self.mesh.server("a.example").graph(&self.club, |g| g.version.as_str() != "12") {
            listed.insert(self.ann.to_string(), 100.into());
        }
        let levels = json!({ "invite": 100, "users": listed });
        self.mesh
            .server("a.example")
            .set(&self.ann, &self.club, "m.room.power_levels", levels)
            .await;
        self.mesh.settle().await;
    }

    fn asked(&self) -> Vec<&'static str> {
        self.mesh.net.take_requests().into_iter().map(|request| request.2).collect()
    }
}

/// TestRestrictedRoomsLocalJoin, TestRestrictedRooms(Local)JoinNoCreatorsUsesPowerLevels: with a
/// user of ours who may invite nobody else is asked.
#[tokio::test]
async fn a_user_of_ours_vouches_where_one_can() {
    for (version, join_rule) in KINDS {
        let stage = stage(version, join_rule).await;
        let [a, b, _] = stage.servers();
        let (bob, bea, abe) = (b.user("bob"), b.user("bea"), a.user("abe"));
        let refused = stage.joins(&abe, &stage.club, &[]).await.unwrap_err();
        assert_eq!(status(refused), (403, "M_FORBIDDEN".into()));
        for user in [&abe, &bob, &bea] {
            stage.joins(user, &stage.lobby, &[a]).await.unwrap();
        }
        stage.joins(&abe, &stage.club, &[]).await.unwrap();
        assert_eq!(stage.authorisers(&abe, &[a]), [Some(stage.ann.to_string())]);

        stage.joins(&bob, &stage.club, &[a]).await.unwrap();
        assert_eq!(stage.authorisers(&bob, &[a, b]), vec![Some(stage.ann.to_string()); 2]);
        stage.let_invite(&[&bob]).await;
        stage.asked();
        stage.joins(&bea, &stage.club, &[a]).await.unwrap();
        assert!(!stage.asked().contains(&"make_join"));
        assert_eq!(stage.authorisers(&bea, &[a, b]), vec![Some(bob.to_string()); 2]);

        // A change of the own member event needs nobody, and clients do not say who vouched.
        let content = object(json!({
            "displayname": "Bea", "join_authorised_via_users_server": "unused",
        }));
        b.rooms.join(&bea, &stage.club, &[], content).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.authorisers(&bea, &[a, b]), [None, None]);
        // Who has left the lobby is not let in again, unless invited.
        b.leave(&bea, &stage.club).await.unwrap();
        b.leave(&bea, &stage.lobby).await.unwrap();
        stage.mesh.settle().await;
        assert!(stage.joins(&bea, &stage.club, &[a]).await.is_err());
        b.invite(&bob, &bea, &stage.club).await.unwrap();
        stage.joins(&bea, &stage.club, &[a]).await.unwrap();
        assert_eq!(stage.authorisers(&bea, &[a, b]), [None, None]);
    }
}

/// TestRestrictedRoomsRemoteJoinLocalUser: we reside in the room, and another server has to vouch.
#[tokio::test]
async fn another_server_vouches_where_none_of_ours_can() {
    for (version, join_rule) in KINDS {
        let stage = stage(version, join_rule).await;
        let [a, b, _] = stage.servers();
        let (bob, bea) = (b.user("bob"), b.user("bea"));
        stage.let_invite(&[]).await;
        a.invite(&stage.ann, &bob, &stage.club).await.unwrap();
        stage.joins(&bob, &stage.club, &[a]).await.unwrap();
        assert!(stage.joins(&bea, &stage.club, &[b]).await.is_err(), "not in the lobby");
        stage.joins(&bea, &stage.lobby, &[a]).await.unwrap();
        b.say(&bob, &stage.club, "before").await;
        stage.mesh.settle().await;
        stage.asked();
        stage.joins(&bea, &stage.club, &[b]).await.unwrap();
        assert!(stage.asked().contains(&"send_join"));
        assert_eq!(stage.authorisers(&bea, &[a, b]), vec![Some(stage.ann.to_string()); 2]);
        // The room that we had is the room that we have.
        assert_eq!(a.state(&stage.club), b.state(&stage.club));
        b.graph(&stage.club, |graph| assert_eq!(graph.room.extremities.len(), 1));
        b.say(&bea, &stage.club, "after").await;
        stage.mesh.settle().await;
        for server in [a, b] {
            assert_eq!(server.messages(&stage.club), ["before", "after"]);
        }
    }
}

/// The server that vouches is ahead of us: its answer rests on events that we have yet to get.
#[tokio::test]
async fn a_vouched_join_brings_what_it_rests_on() {
    let stage = stage("12", "restricted").await;
    let [a, b, _] = stage.servers();
    let (bob, bea) = (b.user("bob"), b.user("bea"));
    stage.let_invite(&[]).await;
    a.invite(&stage.ann, &bob, &stage.club).await.unwrap();
    stage.joins(&bob, &stage.club, &[a]).await.unwrap();
    stage.joins(&bea, &stage.lobby, &[a]).await.unwrap();
    for text in ["1", "2"] {
        a.say(&stage.ann, &stage.club, text).await;
    }
    a.forget_outbox(b).await;
    stage.joins(&bea, &stage.club, &[]).await.unwrap();
    assert_eq!(b.messages(&stage.club), ["1", "2"]);
    assert_eq!(b.membership(&bea, &stage.club).as_deref(), Some("join"));
    // Nobody vouches any more: the client hears why.
    let ben = b.user("ben");
    stage.joins(&ben, &stage.lobby, &[a]).await.unwrap();
    stage.mesh.isolate("a.example");
    assert!(matches!(stage.joins(&ben, &stage.club, &[]).await, Err(RoomError::NoServer(_))));
    assert_eq!(b.in_state(&ben, &stage.club), None);
}

/// TestRestrictedRoomsRemoteJoinFailOver, with what servers that cannot help say.
#[tokio::test]
async fn servers_that_cannot_vouch_are_passed_over() {
    for (version, join_rule) in KINDS {
        let stage = stage(version, join_rule).await;
        let [a, b, c] = stage.servers();
        let (bob, cat) = (b.user("bob"), c.user("cat"));
        stage.let_invite(&[]).await;
        for room in [&stage.lobby, &stage.club] {
            stage.joins(&bob, room, &[a]).await.unwrap();
        }
        let make = async || {
            let entry = b.rooms.admit(&c.name, &stage.club).await.unwrap();
            status(b.rooms.make_join(&entry, &cat, &[version.into()]).await.unwrap_err())
        };
        // The server is in the lobby, and cat is not.
        assert_eq!(make().await, (403, "M_FORBIDDEN".into()));
        stage.joins(&cat, &stage.lobby, &[a]).await.unwrap();
        assert_eq!(make().await, (400, "M_UNABLE_TO_GRANT_JOIN".into()));
        assert!(stage.joins(&cat, &stage.club, &[b]).await.is_err());
        stage.joins(&cat, &stage.club, &[b, a]).await.unwrap();
        let by_ann = vec![Some(stage.ann.to_string()); 3];
        assert_eq!(stage.authorisers(&cat, &[a, b, c]), by_ann);

        stage.let_invite(&[&bob]).await;
        c.leave(&cat, &stage.club).await.unwrap();
        b.leave(&bob, &stage.lobby).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(make().await, (400, "M_UNABLE_TO_AUTHORISE_JOIN".into()));
        assert!(stage.joins(&cat, &stage.club, &[b]).await.is_err());
        stage.joins(&cat, &stage.club, &[b, a]).await.unwrap();
        assert_eq!(stage.authorisers(&cat, &[a, b, c]), by_ann);
    }
}

/// The helper gives a template and then does not vouch: the next one is asked.
#[tokio::test]
async fn a_refused_send_join_fails_over() {
    let stage = stage("12", "restricted").await;
    let [a, b, c] = stage.servers();
    let (bob, cat) = (b.user("bob"), c.user("cat"));
    stage.let_invite(&[&bob]).await;
    for user in [&bob, &cat] {
        stage.joins(user, &stage.lobby, &[a]).await.unwrap();
    }
    stage.joins(&bob, &stage.club, &[a]).await.unwrap();
    let refused = Fault::refused(400, "M_UNABLE_TO_GRANT_JOIN");
    stage.mesh.net.fail_next(&b.name, "send_join", refused);
    stage.joins(&cat, &stage.club, &[b, a]).await.unwrap();
    assert_eq!(stage.authorisers(&cat, &[a, b, c]), vec![Some(stage.ann.to_string()); 3]);
}

/// Who is in the lobby and at once wants into a room of it that only another server is in: that one
/// hears of the first join by us, before whoever took it has passed it on.
#[tokio::test(start_paused = true)]
async fn a_server_hears_of_the_join_that_lets_the_user_in() {
    for resident in [false, true] {
        let stage = stage("12", "restricted").await;
        let [a, b, c] = stage.servers();
        let (bob, bea, cat) = (b.user("bob"), b.user("bea"), c.user("cat"));
        stage.joins(&cat, &stage.lobby, &[a]).await.unwrap();
        if resident {
            stage.joins(&bea, &stage.lobby, &[a]).await.unwrap();
        }
        let allow = json!([{ "type": "m.room_membership", "room_id": stage.lobby }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        let state = vec![("m.room.join_rules", rules)];
        let room = c.room_with(&cat, Preset::Public, "12", state).await;
        stage.mesh.net.cut(&a.name, &c.name);
        b.join(&bob, &stage.lobby, a).await.unwrap();
        assert_eq!(c.in_state(&bob, &stage.lobby), None);

        let delivers = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stage.mesh.settle().await;
            }
        };
        let joined = tokio::select! {
            joined = b.join(&bob, &room, c) => joined,
            () = delivers => unreachable!("it never ends"),
        };
        joined.unwrap_or_else(|error| panic!("resident: {resident}: {error}"));
        assert_eq!(c.in_state(&bob, &room).as_deref(), Some("join"));

        // Who is in no such room is told at once what the server says.
        let ben = b.user("ben");
        let refused = b.join(&ben, &room, c).await.unwrap_err();
        assert!(matches!(refused, RoomError::EntryRefused { .. } | RoomError::Forbidden(_)));
    }
}

/// Conditions that cannot be read let nobody in.
#[tokio::test]
async fn mangled_join_rules_close_the_room() {
    let stage = stage("8", "restricted").await;
    let [a, b, _] = stage.servers();
    let (abe, bob) = (a.user("abe"), b.user("bob"));
    for user in [&abe, &bob] {
        stage.joins(user, &stage.lobby, &[a]).await.unwrap();
    }
    let lobby = stage.lobby.as_str();
    for allow in [
        json!(["invalid"]),
        json!("invalid"),
        Value::Null,
        json!([{ "room_id": lobby }, { "type": "m.other", "room_id": lobby }]),
        json!([{ "type": "m.room_membership", "room_id": 5 }]),
    ] {
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        a.set(&stage.ann, &stage.club, "m.room.join_rules", rules).await;
        for user in [&abe, &bob] {
            let error = stage.joins(user, &stage.club, &[a]).await;
            assert!(error.is_err(), "{user} by {allow}");
        }
    }
}
