//! Directories and spaces over several servers: what one asks of another, and what it gets.

use std::slice::from_ref;

use exeunt_core::{
    RoomVersion,
    ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId},
};
use exeunt_room::{
    Intent, NewRoom, Preset, PublicRoomsPage, PublicRoomsRequest, RoomError,
    spaces::{ANSWER_LIFE_MS, HierarchyRequest},
};
use exeunt_sim::{Fault, Mesh, Scripted, Server, events::object, status};
use serde_json::{Value, json};

fn mesh() -> Mesh {
    Mesh::new(&["a.example", "b.example", "c.example"])
}

/// A room of `ann`'s there, published.
async fn published(
    server: &Server,
    name: &str,
    state: Vec<(&str, Value)>,
    creation: Value,
) -> OwnedRoomId {
    let state = state.into_iter().map(|(kind, content)| (kind.into(), "".into(), object(content)));
    let room = NewRoom {
        published: true,
        name: Some(name.into()),
        initial_state: state.collect(),
        creation_content: object(creation),
        ..NewRoom::new(server.user("ann"), RoomVersion::latest(), Preset::Public)
    };
    server.rooms.create_room(room).await.unwrap()
}

async fn space(server: &Server) -> OwnedRoomId {
    published(server, "Space", Vec::new(), json!({ "type": "m.space" })).await
}

async fn link(server: &Server, space: &RoomId, child: &RoomId, via: &[&str]) {
    let content = object(json!({ "via": via }));
    let intent = Intent::state(server.user("ann"), "m.space.child", child.as_str(), content);
    server.rooms.append(space, intent).await.unwrap();
}

fn names(page: &PublicRoomsPage) -> Vec<&str> {
    page.chunk.iter().map(|room| room.name.as_deref().unwrap_or_default()).collect()
}

async fn walk(
    server: &Server,
    user: &UserId,
    root: &RoomId,
) -> Result<Vec<OwnedRoomId>, RoomError> {
    let (user, room_id) = (user.to_owned(), root.to_owned());
    let (suggested_only, limit, max_depth, from) = (None, None, None, None);
    let request =
        HierarchyRequest { user, room_id, via: Vec::new(), suggested_only, limit, max_depth, from };
    let page = server.rooms.hierarchy(request).await?;
    Ok(page.rooms.into_iter().map(|room| room.summary.room.room_id).collect())
}

#[tokio::test]
async fn another_servers_directory_is_searched_and_paged() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    for name in ["Tea", "Green tea", "Coffee"] {
        published(a, name, Vec::new(), json!({})).await;
    }
    let request = PublicRoomsRequest { limit: Some(2), ..PublicRoomsRequest::default() };
    let first = b.rooms.public_rooms_of(&a.name, request.clone()).await.unwrap();
    assert_eq!((first.chunk.len(), first.total_room_count_estimate), (2, 3));
    let since = first.next_batch.clone();
    let second = PublicRoomsRequest { since, ..request };
    let second = b.rooms.public_rooms_of(&a.name, second).await.unwrap();
    assert_eq!((second.chunk.len(), &second.next_batch), (1, &None));
    let search = Some("TEA".to_owned());
    let request = PublicRoomsRequest { search, ..PublicRoomsRequest::default() };
    let found = b.rooms.public_rooms_of(&a.name, request).await.unwrap();
    assert_eq!(names(&found).len(), 2);
    assert!(!names(&found).contains(&"Coffee"));
    assert_eq!(found.chunk[0].join_rule, "public");
}

/// A directory is no way around an ACL.
#[tokio::test]
async fn a_server_is_not_told_of_rooms_that_do_not_let_it_in() {
    let mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let acl = json!({ "allow": ["*"], "deny": ["c.example"] });
    published(a, "Not c's", vec![("m.room.server_acl", acl)], json!({})).await;
    published(a, "Local", Vec::new(), json!({ "m.federate": false })).await;
    published(a, "All", Vec::new(), json!({})).await;
    for (asks, expected) in [(b, vec!["All", "Not c's"]), (c, vec!["All"])] {
        let all = PublicRoomsRequest::default();
        let page = asks.rooms.public_rooms_of(&a.name, all).await.unwrap();
        let mut found = names(&page);
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_hostile_directory_does_no_harm() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let room = |id: &str| json!({ "room_id": id, "num_joined_members": 3 });
    let answer = json!({
        "chunk": [
            1, null, { "room_id": "nonsense" }, { "name": "no id" },
            { "room_id": "!x:y", "name": 5 }, { "room_id": "!x:y", "num_joined_members": -1 },
            room("!a:y"), room("!b:y"), room("!c:y"),
        ],
        "next_batch": "x".repeat(100_000),
        "prev_batch": 7,
        "total_room_count_estimate": "many",
    });
    mesh.net.fail_next(&a.name, "publicRooms", Fault::Forged(answer));
    let request = PublicRoomsRequest { limit: Some(2), ..PublicRoomsRequest::default() };
    let page = b.rooms.public_rooms_of(&a.name, request.clone()).await.unwrap();
    let ids: Vec<_> = page.chunk.iter().map(|room| room.room_id.as_str()).collect();
    assert_eq!(ids, ["!a:y", "!b:y"]);
    assert_eq!((page.next_batch, page.prev_batch, page.total_room_count_estimate), (None, None, 2));
    for answer in [json!([]), json!({ "chunk": {} }), json!("x")] {
        mesh.net.fail_next(&a.name, "publicRooms", Fault::Forged(answer));
        let failed = b.rooms.public_rooms_of(&a.name, request.clone()).await;
        assert!(matches!(failed, Err(RoomError::Remote { .. })));
    }
}

/// Rooms of two servers in one tree, each asked where it is; then remembered for a while.
#[tokio::test]
async fn a_tree_over_two_servers() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (root, inner, near) = (space(a).await, space(a).await, space(a).await);
    let (far, far_space) = (space(b).await, space(b).await);
    link(a, &root, &inner, &["a.example"]).await;
    link(a, &inner, &far_space, &["c.example", "b.example"]).await;
    link(b, &far_space, &near, &["a.example"]).await;
    link(b, &far_space, &far, &["b.example"]).await;
    let user = a.user("ann");
    mesh.net.take_requests();
    let tree = walk(a, &user, &root).await.unwrap();
    assert_eq!(tree[..3], [root.clone(), inner.clone(), far_space.clone()]);
    let mut below = tree[3..].to_vec();
    below.sort();
    let mut expected = vec![near, far];
    expected.sort();
    assert_eq!(below, expected);
    let asked = |mesh: &Mesh| {
        let requests = mesh.net.take_requests().into_iter();
        requests.map(|(_, to, _)| to.to_string()).collect::<Vec<_>>()
    };
    // `far` is a space, so what its parent's server said of it is not enough.
    assert_eq!(asked(&mesh), ["c.example", "b.example", "b.example"]);
    // Whoever told nothing is asked again.
    assert_eq!(walk(a, &user, &root).await.unwrap(), tree);
    assert_eq!(asked(&mesh), ["c.example"]);
    mesh.clock.advance(ANSWER_LIFE_MS);
    assert_eq!(walk(a, &user, &root).await.unwrap(), tree);
    assert_eq!(asked(&mesh).len(), 3);
    // A space that we are not in at all.
    let bob = a.user("bob");
    let from_elsewhere = walk(a, &bob, &far_space).await;
    assert_eq!(status(from_elsewhere.unwrap_err()).0, 403);
    let (summary, membership) =
        a.rooms.room_summary(Some(&bob), &far_space, from_ref(&b.name)).await.unwrap();
    assert_eq!(summary.room.name.as_deref(), Some("Space"));
    assert_eq!(membership.as_deref(), Some("leave"));
}

/// Complement's TestRestrictedRoomsSpacesSummaryFederation.
#[tokio::test]
async fn a_restricted_child_elsewhere_is_shown_to_those_who_could_join() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob, cat) = (a.user("ann"), a.user("bob"), b.user("cat"));
    let peek = json!({ "history_visibility": "world_readable" });
    let peek = vec![("m.room.history_visibility", peek)];
    let root = published(a, "Space", peek, json!({ "type": "m.space" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": root }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let club = b.room_with(&cat, Preset::Private, "8", vec![("m.room.join_rules", rule)]).await;
    link(a, &root, &club, &["b.example"]).await;
    for user in [&ann, &bob] {
        assert_eq!(walk(a, user, &root).await.unwrap(), from_ref(&root));
    }
    b.join(&cat, &root, a).await.unwrap();
    mesh.settle().await;
    assert_eq!(walk(a, &ann, &root).await.unwrap(), [root.clone(), club.clone()]);
    assert_eq!(walk(a, &bob, &root).await.unwrap(), from_ref(&root));
    let via = [b.name.clone()];
    a.rooms.room_summary(Some(&ann), &club, &via).await.unwrap();
    let hidden = a.rooms.room_summary(Some(&bob), &club, &via).await.unwrap_err();
    assert_eq!(status(hidden).0, 404);
    let anyone = a.rooms.room_summary(None, &club, &via).await.unwrap_err();
    assert_eq!(status(anyone).0, 404);
}

/// What a server may know of rooms that it is not in: what its users could join or peek.
#[tokio::test]
async fn a_private_room_is_not_told_to_servers_outside() {
    let mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let ann = a.user("ann");
    let root = space(a).await;
    let private = a.room(&ann, Preset::Private, "12").await;
    let acl = json!({ "allow": ["*"], "deny": ["c.example"] });
    let public = a.room_with(&ann, Preset::Public, "12", vec![("m.room.server_acl", acl)]).await;
    let local = published(a, "Local", Vec::new(), json!({ "m.federate": false })).await;
    for child in [&private, &public, &local] {
        link(a, &root, child, &["a.example"]).await;
    }
    let elsewhere = RoomId::parse("!elsewhere:x").unwrap();
    link(a, &root, &elsewhere, &["b.example"]).await;
    let told = async |server: &Server, room: &RoomId| {
        let entry = a.rooms.admit(&server.name, room).await?;
        a.rooms.hierarchy_for_server(&entry, false).await
    };
    let check = async |server: &Server, shown: &[&OwnedRoomId], hidden: &[&OwnedRoomId]| {
        let answer = told(server, &root).await.unwrap();
        let ids = |list: &Value, id: fn(&Value) -> &Value| {
            let mut ids: Vec<_> = list.as_array().unwrap().iter().map(id).cloned().collect();
            ids.sort_by_key(ToString::to_string);
            ids
        };
        let sorted = |rooms: &[&OwnedRoomId]| {
            let mut rooms: Vec<Value> = rooms.iter().map(|room| json!(room)).collect();
            rooms.sort_by_key(ToString::to_string);
            rooms
        };
        assert_eq!(ids(&answer["children"], |room| &room["room_id"]), sorted(shown));
        assert_eq!(ids(&answer["inaccessible_children"], |id| id), sorted(hidden));
        assert_eq!(answer["room"]["children_state"].as_array().unwrap().len(), 4);
    };
    check(b, &[&public], &[&private, &local]).await;
    check(c, &[], &[&private, &public, &local]).await;
    assert_eq!(status(told(b, &private).await.unwrap_err()), (404, "M_NOT_FOUND".into()));
    assert_eq!(status(told(c, &public).await.unwrap_err()), (403, "M_FORBIDDEN".into()));
    assert_eq!(status(told(b, &elsewhere).await.unwrap_err()), (404, "M_NOT_FOUND".into()));
    // An invited user could join.
    a.invite(&ann, &b.user("bob"), &private).await.unwrap();
    check(b, &[&public, &private], &[&local]).await;
    let room = told(b, &private).await.unwrap();
    assert_eq!(room["room"]["join_rule"], "invite");
}

/// A server that lies about rooms is believed about what it was asked, at most.
#[tokio::test]
async fn a_hostile_tree_does_no_harm() {
    let mesh = mesh();
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let user = a.user("ann");
    let root = space(a).await;
    let ours = published(a, "Ours", Vec::new(), json!({})).await;
    let far = RoomId::parse("!far:c.example").unwrap();
    link(a, &root, &far, &["c.example"]).await;
    let child = |room: &str| {
        json!({
            "type": "m.space.child", "state_key": room, "sender": "@x:c.example",
            "origin_server_ts": 1, "content": { "via": ["c.example"] },
        })
    };
    let room = |id: &str, name: &str| json!({ "room_id": id, "name": name, "room_type": "m.space", "join_rule": "public" });
    // About another room; of a wrong shape; a refusal that would log the user out.
    for answer in [
        json!({ "room": room("!other:c.example", "x") }),
        json!({ "room": { "room_id": far, "name": [] } }),
        json!({ "room": [] }),
        json!([]),
    ] {
        mesh.net.fail_next(&c.name, "hierarchy", Fault::Forged(answer));
        assert_eq!(walk(a, &user, &root).await.unwrap(), from_ref(&root));
    }
    mesh.net.fail_next(&c.name, "hierarchy", Fault::refused(401, "M_UNKNOWN_TOKEN"));
    assert_eq!(walk(a, &user, &root).await.unwrap(), from_ref(&root));
    // A tree without end, with our room under a false name and one that it does not name.
    let (ours_id, name) = (ours.clone(), c.name.clone());
    mesh.net.script(&c.name, move |call| match call {
        exeunt_room::Call::Hierarchy { room: asked } => {
            let deeper = format!("!x{}", &asked.as_str()[1..]);
            let mut whole = room(asked.as_str(), "Far");
            whole["children_state"] =
                json!([child(&deeper), child(ours_id.as_str()), child("!hidden:x"), 1]);
            Scripted::Answer(Ok(json!({
                "room": whole,
                "children": [room(ours_id.as_str(), "False"), room("!unnamed:x", "x"), null],
                "inaccessible_children": ["!hidden:x", root_of(&name), 1],
            })))
        }
        _ => Scripted::Honest,
    });
    let request = HierarchyRequest {
        user: user.clone(),
        room_id: root.clone(),
        via: Vec::new(),
        suggested_only: None,
        limit: Some(10),
        max_depth: Some(3),
        from: None,
    };
    let page = a.rooms.hierarchy(request).await.unwrap();
    let found: Vec<_> = page.rooms.iter().map(|room| room.summary.room.room_id.as_str()).collect();
    assert_eq!(found.iter().filter(|id| **id == ours.as_str()).count(), 1);
    assert!(!found.contains(&"!hidden:x") && !found.contains(&"!unnamed:x"), "{found:?}");
    let about_ours = page.rooms.iter().find(|room| room.summary.room.room_id == ours);
    assert_eq!(about_ours.unwrap().summary.room.name.as_deref(), Some("Ours"));
    assert_eq!(found.len(), 5, "{found:?}");
}

fn root_of(server: &OwnedServerName) -> String {
    format!("!root:{server}")
}

/// MSC4235: a room id of version 12 names no server to ask about the root.
#[tokio::test]
async fn a_root_is_asked_about_where_the_client_says() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let root = space(b).await;
    let request = HierarchyRequest {
        user: a.user("ann"),
        room_id: root.clone(),
        via: vec![b.name.clone()],
        suggested_only: None,
        limit: None,
        max_depth: None,
        from: None,
    };
    assert!(
        a.rooms.hierarchy(HierarchyRequest { via: Vec::new(), ..request.clone() }).await.is_err()
    );
    let page = a.rooms.hierarchy(request).await.unwrap();
    assert_eq!(page.rooms[0].summary.room.room_id, root);
}

/// A canonical alias leads to the room, whosever the alias is (`M_BAD_ALIAS`).
#[tokio::test]
async fn aliases_of_other_servers_are_looked_up() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    let other = b.room(&bob, Preset::Public, "12").await;
    let alias = |text: &str| exeunt_core::ruma::RoomAliasId::parse(text).unwrap();
    b.rooms.create_alias(&alias("#老虎:b.example"), &room, &bob).await.unwrap();
    b.rooms.create_alias(&alias("#other:b.example"), &other, &bob).await.unwrap();
    let (found, _) = a.rooms.resolve_alias(&alias("#老虎:b.example")).await.unwrap();
    assert_eq!(found, room);
    let check = async |content: Value| {
        a.rooms.check_canonical_alias(&room, &object(content)).await.map_err(status)
    };
    let good = json!({ "alias": "#老虎:b.example" });
    check(good.clone()).await.unwrap();
    for bad in ["#other:b.example", "#none:b.example", "#x:nowhere.example"] {
        let content = json!({ "alias": "#老虎:b.example", "alt_aliases": [bad] });
        assert_eq!(check(content).await, Err((400, "M_BAD_ALIAS".into())), "{bad}");
    }
    let many: Vec<_> = (0..30).map(|i| format!("#{i}:b.example")).collect();
    let many = check(json!({ "alt_aliases": many })).await;
    assert_eq!(many, Err((400, "M_INVALID_PARAM".into())));
    // What the room has said already can stay, though it leads nowhere any more.
    a.set(&ann, &room, "m.room.canonical_alias", good).await;
    b.rooms.delete_alias(&alias("#老虎:b.example"), &bob, false).await.unwrap();
    check(json!({ "alias": "#老虎:b.example", "alt_aliases": [] })).await.unwrap();
}
