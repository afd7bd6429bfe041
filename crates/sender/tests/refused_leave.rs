//! Leaves that a server would not have.

mod support;

use exeunt_core::ruma::{EventId, OwnedEventId, OwnedServerName, room_id, server_name, user_id};
use exeunt_sender::TransactionAnswer;
use exeunt_store::records::{DepartureRecord, EventRecord, MembershipRecord, OutboxItem};
use exeunt_store::tables::{Departures, Events, Memberships};
use exeunt_store::{Batch, Store};
use serde_json::{Value, json};
use support::{Fake, Reply, Running, event_record, peer, queue_item};

fn id(name: &str) -> OwnedEventId {
    EventId::parse(format!("${name}")).unwrap()
}

/// Queues the leave of bob, or something like it, and makes another event bob's last word.
async fn queue(store: &Store, servers: &[OwnedServerName], event: &Value, last: &str) {
    let record = event_record(room_id!("!r:peer.org"), event);
    let record = EventRecord { room_version: "10".to_owned(), ..record };
    let bob = user_id!("@bob:example.org").to_owned();
    let membership = MembershipRecord {
        membership: "leave".into(),
        event_id: id(last),
        sender: bob.clone(),
        position: 0,
        local_event: None,
        room_version: None,
        forgotten: false,
    };
    let mut batch = Batch::default();
    batch.put::<Events>(&id("leave"), &record);
    batch.put::<Memberships>(&(bob, record.room_id.clone()), &membership);
    store.commit(batch).await.unwrap();
    for server in servers {
        queue_item(store, server, OutboxItem::Pdu(id("leave")), Batch::default()).await;
    }
}

/// Delivers what is queued to servers that refuse it all.
async fn refuse(store: &Store) -> Vec<DepartureRecord> {
    let why = Err("Server is banned from the room".to_owned());
    let answer = TransactionAnswer { pdus: [(id("leave"), why)].into() };
    let fake = Fake::new(move |_| Reply::Answer(answer.clone()));
    let running = Running::start(store, &fake);
    running.idle(store).await;
    let rows = store.reader().scan::<Departures>(()).collect().unwrap();
    rows.into_iter().map(|(_, row)| row).collect()
}

fn member(sender: &str, user: &str, membership: &str) -> Value {
    json!({ "type": "m.room.member", "room_id": "!r:peer.org", "sender": sender, "state_key": user,
        "content": { "membership": membership }, "n": 0, "depth": 1, "origin_server_ts": 1,
        "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {} })
}

/// The simulation's seed 1851: a room's ACL denied the server of one who left.
#[tokio::test(start_paused = true)]
async fn a_leave_that_is_refused_goes_on_as_a_departure() {
    let store = Store::memory();
    let leave = member("@bob:example.org", "@bob:example.org", "leave");
    let other = server_name!("other.org").to_owned();
    queue(&store, &[peer(), other.clone()], &leave, "leave").await;

    let departures = refuse(&store).await;

    let [departure] = &departures[..] else { panic!("{departures:?}") };
    let mut candidates = departure.candidates.clone();
    candidates.sort();
    assert_eq!(candidates, [other, peer()]);
    assert_eq!(departure.pending.user_id, user_id!("@bob:example.org"));
    assert_eq!(departure.pending.room_id, room_id!("!r:peer.org"));
    assert_eq!(departure.pending.room_version, "10");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_last_leave_of_a_user_of_ours_is_set_aside_only() {
    let (bob, ann) = ("@bob:example.org", "@ann:example.org");
    for (event, last) in [
        // Bob has come back since.
        (member(bob, bob, "leave"), "join"),
        (member(bob, bob, "join"), "leave"),
        (member(ann, bob, "leave"), "leave"),
        (member("@bob:peer.org", "@bob:peer.org", "leave"), "leave"),
        (json!({ "type": "m.room.message", "sender": bob, "n": 0, "content": {} }), "leave"),
    ] {
        let store = Store::memory();
        queue(&store, &[peer()], &event, last).await;

        assert_eq!(refuse(&store).await, [], "{event}");
    }
}
