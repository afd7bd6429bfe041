//! Timelines are in the order of arrival.

use exeunt_core::Object;
use exeunt_room::{
    Intent, Preset,
    views::{Direction, EventFilter, MessagesRequest, SyncRequest},
};
use exeunt_sim::Mesh;
use serde_json::json;

/// The room of Complement's TestSyncOmitsStateChangeOnFilteredEvents: a name that was set beside two
/// messages comes after them, and the filter takes what merges the two. It is in the timeline of a
/// first sync, whose pages before it have the rest, each once (decision 0041).
#[tokio::test]
async fn what_came_late_from_beside_is_told_once() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = b.room(&bob, Preset::Public, "12").await;
    a.join(&ann, &room, b).await.unwrap();
    a.say(&ann, &room, "E1").await;
    mesh.settle().await;
    let name = b.set(&bob, &room, "m.room.name", json!({ "name": "S2" })).await;
    a.say(&ann, &room, "E3").await;
    a.say(&ann, &room, "E4").await;
    mesh.settle().await;
    let merge = Intent::message(ann.clone(), "please_filter_me", Object::new());
    a.rooms.append(&room, merge).await.unwrap();

    let timeline = json!({ "limit": 1, "not_types": ["please_filter_me"] });
    let filter = json!({ "room": { "timeline": timeline } });
    let request = SyncRequest {
        viewer: a.rooms.viewer(&ann, None),
        since: None,
        filter: serde_json::from_value(filter).unwrap(),
        full_state: false,
        use_state_after: false,
    };
    let view = a.rooms.sync(request).await.unwrap();
    let joined = &view.join[&room];
    assert_eq!(joined.timeline.events.len(), 1);
    assert!(joined.timeline.events[0].has_id(&name));
    assert!(joined.timeline.limited);
    let request = MessagesRequest {
        viewer: a.rooms.viewer(&ann, None),
        room_id: room,
        from: Some(joined.timeline.prev_batch),
        to: None,
        direction: Direction::Backward,
        limit: Some(3),
        filter: EventFilter::default(),
    };
    let page = a.rooms.messages(request).await.unwrap();
    let bodies = page.chunk.iter().filter_map(|event| event["content"]["body"].as_str());
    let bodies: Vec<_> = bodies.collect();
    assert_eq!(bodies, ["E4", "E3", "E1"]);
}
