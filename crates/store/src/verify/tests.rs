use exeunt_core::StateKey;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, owned_room_id, owned_user_id};
use serde_json::value::RawValue;

use super::*;
use crate::records::{
    EventRecord, MembershipRecord, OutboxItem, RedactionRecord, RelationRecord, RoomRecord, Root,
    SignatureRecord, States, Verdict,
};
use crate::tables::{
    Denied, Events, Memberships, OlderHeads, Outbox, Redactions, Relations, RoomStates, Rooms,
    SigningJournal, StateNodes, Timeline,
};
use crate::{Batch, snapshot};

fn id(name: &str) -> OwnedEventId {
    OwnedEventId::try_from(format!("${name}")).unwrap()
}

fn room() -> OwnedRoomId {
    owned_room_id!("!room:x.org")
}

fn user() -> OwnedUserId {
    owned_user_id!("@user:x.org")
}

fn event(after: Root) -> EventRecord {
    EventRecord {
        json: RawValue::from_string("{}".to_owned()).unwrap().into(),
        room_id: room(),
        room_version: "12".to_owned(),
        verdict: Verdict::Accepted,
        generation: 0,
        states: Some(States { before: Root::EMPTY, after, told: false }),
        replaces: Default::default(),
        order: Some(-1),
        redacted_because: None,
        received_from: None,
    }
}

fn membership(event: &str, position: u64) -> MembershipRecord {
    MembershipRecord {
        membership: "join".to_owned(),
        event_id: id(event),
        sender: user(),
        position,
        local_event: None,
        room_version: None,
        forgotten: false,
    }
}

fn head(state: Root) -> RoomRecord {
    RoomRecord {
        version: "12".to_owned(),
        create_event: id("create"),
        extremities: vec![id("create")],
        has_older_heads: false,
        state,
        state_since: 0,
        has_relations: false,
        depth: 1,
        first_order: -1,
        position: 1,
        untold: Vec::new(),
        since: 0,
    }
}

/// A small sound store; returns the root of its room's state.
async fn sound() -> (Store, Root) {
    let store = Store::memory();
    let mut batch = Batch::default();
    let state = [(StateKey::single("m.room.create"), id("create"))];
    let root = snapshot::from_map(&state.into(), &mut batch);
    batch.put::<Events>(&id("create"), &event(root));
    batch.put::<Timeline>(&(room(), -1), &id("create"));
    batch.put::<Rooms>(&room(), &head(root));
    batch.put::<Memberships>(&(user(), room()), &membership("create", 1));
    let peer = ruma::owned_server_name!("y.org");
    batch.put::<Outbox>(&(peer.clone(), 1), &OutboxItem::Pdu(id("create")));
    batch.put::<Denied>(&(room(), 1), &(peer.clone(), id("create")));
    let redaction = RedactionRecord { server: peer, is_entitled: true };
    batch.put::<OlderHeads>(&(room(), 1, id("create")), &());
    batch.put::<Redactions>(&(room(), id("absent"), id("create")), &redaction);
    store.commit(batch).await.unwrap();
    (store, root)
}

/// The findings after a change to a sound store: table and problem.
async fn findings(change: impl FnOnce(&mut Batch, Root)) -> Vec<String> {
    let (store, root) = sound().await;
    let mut batch = Batch::default();
    change(&mut batch, root);
    store.commit(batch).await.unwrap();
    let findings = verify(&store).unwrap().findings;
    findings.into_iter().map(|f| format!("{}: {}", f.table, f.problem)).collect()
}

#[tokio::test]
async fn a_sound_store_is_clean() {
    let report = verify(&sound().await.0).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert!(report.rows >= 7);
}

#[tokio::test]
async fn a_lost_event_is_missed_by_all_who_name_it() {
    let found = findings(|batch, _| batch.delete::<Events>(&id("create"))).await;
    for table in
        ["Timeline", "Rooms", "OlderHeads", "Memberships", "Outbox", "Redactions", "Denied"]
    {
        let expected = format!("{table}: event $create is not there");
        assert!(found.contains(&expected), "{table}: {found:?}");
    }
}

#[tokio::test]
async fn a_lost_state_node_is_found_once() {
    let found = findings(|batch, root| batch.delete::<StateNodes>(&root.0)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Events: state node "));
}

#[tokio::test]
async fn a_state_node_with_other_content_is_found() {
    let found = findings(|batch, root| {
        batch.put::<StateNodes>(&root.0, &snapshot::Node::Leaf(Vec::new()));
    });
    let found = found.await;
    assert!(found[0].ends_with("has other content"), "{found:?}");
}

#[tokio::test]
async fn positions_are_not_ahead_of_the_counter() {
    let found = findings(|batch, _| {
        batch.put::<Memberships>(&(user(), room()), &membership("create", 3));
        let signature = SignatureRecord {
            purpose: "event".to_owned(),
            event_id: id("create"),
            peer: None,
            at: 0,
        };
        batch.put::<SigningJournal>(&2, &signature);
        batch.put::<SigningJournal>(&9, &signature);
    });
    assert_eq!(
        found.await,
        [
            "Memberships: position 3 is after the last one, 2",
            "SigningJournal: position 9 is after the last one, 2",
        ]
    );
}

#[tokio::test]
async fn a_membership_may_have_its_event_beside_the_graph() {
    let found = findings(|batch, _| {
        let mut beside = membership("elsewhere", 1);
        beside.local_event = Some(exeunt_core::Object::new());
        batch.put::<Memberships>(&(user(), room()), &beside);
    });
    assert_eq!(found.await, [""; 0]);
}

#[tokio::test]
async fn a_head_knows_its_state_and_whether_there_are_relations() {
    let found = findings(|batch, root| {
        batch.put::<Rooms>(&room(), &RoomRecord { state_since: 1, ..head(root) });
        let child = RelationRecord {
            event_id: id("create"),
            rel_type: "m.reference".to_owned(),
            kind: "m.room.message".to_owned(),
            sender: user(),
            ts: 0,
        };
        batch.put::<Relations>(&(room(), id("create"), -1), &child);
    });
    assert_eq!(
        found.await,
        [
            "Relations: !room:x.org has relations, and says that it has none",
            "Rooms: its state is not that of 1",
        ]
    );
    let found = findings(|batch, root| {
        batch.put::<Rooms>(&room(), &RoomRecord { state_since: 1, ..head(root) });
        batch.put::<RoomStates>(&(room(), 1), &root);
    });
    assert_eq!(found.await, [""; 0]);
}

#[tokio::test]
async fn a_timeline_begins_where_its_room_says() {
    let found = findings(|batch, _| batch.put::<Timeline>(&(room(), -5), &id("create")));
    assert_eq!(found.await, ["Rooms: the timeline begins at -5, before -1"]);
}

#[tokio::test]
async fn long_lists_of_findings_are_cut() {
    let found = findings(|batch, _| {
        for position in 0..MAX_FINDINGS as i64 + 5 {
            batch.put::<Timeline>(&(room(), position), &id("nowhere"));
        }
    });
    assert_eq!(found.await.len(), MAX_FINDINGS);
}
