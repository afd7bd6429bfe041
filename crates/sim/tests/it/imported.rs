//! Messages that bear older dates than they have: an application service imported them.

use exeunt_room::{
    Intent, Preset,
    views::{Direction, TimestampRequest},
};
use exeunt_sim::Mesh;
use serde_json::json;

/// As Complement's TestJumpToDateEndpoint: what an application service has imported is found by the
/// date that it gave, on another server too, and what has one date is in the order of the room.
#[tokio::test]
async fn imported_messages_are_found_by_their_dates() {
    let mesh = Mesh::new(&["a.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    let created = a.event(&a.timeline(&room)[0]).unwrap().pdu.origin_server_ts();
    let import = async |body: &str, ts: u64| {
        let content = json!({ "body": body }).as_object().cloned().unwrap();
        let intent = Intent::message(ann.clone(), "m.room.message", content);
        a.rooms.append(&room, Intent { ts: Some(ts), ..intent }).await.unwrap()
    };
    let old = created - 1_000_000;
    let first = import("1", old).await;
    import("2", old).await;
    let last = import("3", old).await;
    assert_eq!(a.messages(&room), ["1", "2", "3"]);
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    let closest = async |ts, direction| {
        let viewer = c.rooms.viewer(&cat, None);
        let request = TimestampRequest { viewer, room_id: room.clone(), ts, direction };
        let found = c.rooms.timestamp_to_event(request).await.unwrap();
        found.map(|found| found.event_id)
    };
    for (ts, direction, expected) in [
        (created - 1, Direction::Backward, Some(&last)),
        (old, Direction::Backward, Some(&last)),
        (old, Direction::Forward, Some(&first)),
        (old - 1, Direction::Backward, None),
    ] {
        assert_eq!(closest(ts, direction).await.as_ref(), expected, "{ts} {direction:?}");
    }
}
