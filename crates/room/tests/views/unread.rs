//! Unread counts: what the predefined push rules make of events, and what receipts end.

use exeunt_core::Object;
use exeunt_room::views::{Counts, Unread, sync::MAX_UNREAD};
use exeunt_room::{Intent, Receipt, ReceiptKind};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};

use crate::bench::{Bench, bench, object, user};

async fn send(
    bench: &Bench,
    sender: &UserId,
    room: &RoomId,
    kind: &str,
    content: Value,
) -> OwnedEventId {
    let intent = Intent::message(sender.to_owned(), kind, object(content));
    bench.rooms.append(room, intent).await.unwrap()
}

async fn read(bench: &Bench, room: &RoomId, kind: ReceiptKind, event: &OwnedEventId, of: &str) {
    let thread = Some(of.to_owned()).filter(|of| !of.is_empty());
    let receipt = Receipt { user: user("bob"), kind, event_id: event.clone(), thread };
    bench.rooms.receipt(room, receipt).await.unwrap();
}

async fn unread(bench: &Bench, room: &RoomId) -> Unread {
    bench.sync(&user("bob"), None).await.join[room].unread.clone()
}

fn counts(notifications: u64, highlights: u64) -> Counts {
    Counts { notifications, highlights }
}

/// Alice's room, in which Bob is and Carol too.
async fn stage() -> (Bench, OwnedRoomId) {
    let bench = bench();
    let room = bench.room(&user("alice"), "shared").await;
    bench.say(&user("alice"), &room, "before Bob came").await;
    bench.join(&user("bob"), &room).await;
    bench.join(&user("carol"), &room).await;
    (bench, room)
}

#[tokio::test]
async fn what_counts_and_what_is_a_highlight() {
    let message = |more: Value| {
        let mut content = object(json!({ "msgtype": "m.text", "body": "hi" }));
        content.extend(object(more));
        Value::Object(content)
    };
    let edit = json!({ "rel_type": "m.replace", "event_id": "$x" });
    let (kind, me) = ("m.room.message", json!({ "user_ids": [user("bob")] }));
    let table = [
        (kind, message(json!({})), 1, 0),
        ("m.room.encrypted", json!({ "ciphertext": "x" }), 1, 0),
        ("m.call.invite", json!({}), 1, 0),
        ("m.reaction", json!({}), 0, 0),
        ("org.example.thing", json!({}), 0, 0),
        (kind, message(json!({ "msgtype": "m.notice" })), 0, 0),
        (kind, message(json!({ "m.relates_to": edit })), 0, 0),
        // Mentions.
        (kind, message(json!({ "m.mentions": me })), 1, 1),
        (kind, message(json!({ "m.mentions": me, "msgtype": "m.notice" })), 0, 0),
        (kind, message(json!({ "m.mentions": me, "m.relates_to": edit })), 1, 1),
        ("m.room.encrypted", json!({ "m.mentions": me }), 1, 1),
        ("org.example.thing", json!({ "m.mentions": me }), 1, 1),
        (kind, message(json!({ "m.mentions": { "user_ids": [user("carol")] } })), 1, 0),
        (kind, message(json!({ "m.mentions": { "room": true } })), 1, 1),
        (kind, message(json!({ "m.mentions": 7 })), 1, 0),
        // Of before there were mentions.
        (kind, message(json!({ "body": "Hello Bob!" })), 1, 1),
        (kind, message(json!({ "body": "Hello bobby" })), 1, 0),
        (kind, message(json!({ "body": "Hello Bob!", "m.mentions": {} })), 1, 0),
        (kind, message(json!({ "body": "look, @room" })), 1, 1),
    ];
    for (kind, content, notifications, highlights) in table {
        let (bench, room) = stage().await;
        send(&bench, &user("alice"), &room, kind, content.clone()).await;
        let found = unread(&bench, &room).await;
        assert_eq!(found.total(), counts(notifications, highlights), "{kind} {content}");
        assert_eq!(found.threads.len(), 0);
    }
}

/// Decision 0027.
#[tokio::test]
async fn a_users_own_rules_decide_what_counts_for_them() {
    let (bench, room) = stage().await;
    let bob = user("bob");
    let name = object(json!({ "membership": "join", "displayname": "Big Bear" }));
    let intent = Intent::state(bob.clone(), "m.room.member", bob.clone(), name);
    bench.rooms.append(&room, intent).await.unwrap();
    // Two plain ones, of which one names a keyword; a mention; a name in the text; a call to all.
    bench.say(&user("alice"), &room, "time for tea").await;
    bench.say(&user("carol"), &room, "look, a big bear").await;
    let me = json!({ "body": "you", "m.mentions": { "user_ids": [bob] } });
    send(&bench, &user("alice"), &room, "m.room.message", me).await;
    bench.say(&user("alice"), &room, "hello bob").await;
    let all = json!({ "body": "all", "m.mentions": { "room": true } });
    send(&bench, &user("alice"), &room, "m.room.message", all).await;
    assert_eq!(unread(&bench, &room).await.main, counts(5, 3));

    let silent = |rule_id: &str| json!({ "rule_id": rule_id, "default": false, "enabled": true, "actions": [] });
    let with = |mut rule: Value, more: Value| {
        rule.as_object_mut().unwrap().extend(object(more));
        rule
    };
    let here = json!([{ "kind": "event_match", "key": "room_id", "pattern": room }]);
    let loud = json!({ "actions": ["notify", { "set_tweak": "highlight" }] });
    let predefined = |rule_id: &str, conditions: Value| {
        let rule = json!({ "default": true, "conditions": conditions });
        with(silent(rule_id), rule)
    };
    let named = json!({ "conditions": [{ "kind": "contains_display_name" }] });
    for (what, kind, rule, expected) in [
        ("no change", "room", with(silent("!other:here.example"), json!({})), counts(5, 3)),
        ("muted", "override", with(silent("x"), json!({ "conditions": here })), counts(0, 0)),
        ("mentions only", "room", silent(room.as_str()), counts(3, 3)),
        ("a silent sender", "sender", silent("@carol:here.example"), counts(4, 3)),
        (
            "a keyword",
            "content",
            with(with(silent("k"), json!({ "pattern": "tea" })), loud.clone()),
            counts(5, 4),
        ),
        ("a display name", "override", with(with(silent("n"), named), loud), counts(5, 4)),
        ("no messages", "underride", predefined(".m.rule.message", json!([])), counts(3, 3)),
        (
            "no mentions",
            "override",
            with(predefined(".m.rule.is_user_mention", json!([])), json!({ "enabled": false })),
            counts(5, 2),
        ),
        ("nothing", "override", predefined(".m.rule.master", json!([])), counts(0, 0)),
    ] {
        bench.account_data(&bob, "m.push_rules", json!({ "global": { kind: [rule] } })).await;
        for _ in 0..2 {
            assert_eq!(unread(&bench, &room).await.main, expected, "{what}");
        }
    }
    // It is their affair alone.
    let carol = bench.sync(&user("carol"), None).await.join[&room].unread.main;
    assert_eq!(carol, counts(4, 1));
}

#[tokio::test]
async fn a_call_to_all_takes_power() {
    let (bench, room) = stage().await;
    for content in [json!({ "body": "@room" }), json!({ "m.mentions": { "room": true } })] {
        send(&bench, &user("carol"), &room, "m.room.message", content).await;
    }
    assert_eq!(unread(&bench, &room).await.main, counts(2, 0));
}

#[tokio::test]
async fn own_messages_and_those_of_ignored_users_do_not_count() {
    let (bench, room) = stage().await;
    bench.say(&user("bob"), &room, "mine").await;
    bench.say(&user("carol"), &room, "theirs").await;
    assert_eq!(unread(&bench, &room).await.main, counts(1, 0));
    let since = bench.sync(&user("bob"), None).await.next_batch;
    bench.ignore(&user("bob"), &user("carol")).await;
    assert_eq!(unread(&bench, &room).await.main, counts(0, 0));
    // Nor are they told; state still is.
    bench.say(&user("carol"), &room, "unheard").await;
    assert!(bench.sync(&user("bob"), Some(since)).await.is_empty());
    bench.leave(&user("carol"), &room).await;
    let view = bench.sync(&user("bob"), Some(since)).await;
    assert_eq!(view.join[&room].timeline.events.len(), 1);
}

#[tokio::test]
async fn what_is_redacted_is_not_unread() {
    let (bench, room) = stage().await;
    let said = bench.say(&user("alice"), &room, "regret").await;
    assert_eq!(unread(&bench, &room).await.main, counts(1, 0));
    let intent = Intent {
        redacts: Some(said),
        ..Intent::message(user("alice"), "m.room.redaction", Object::new())
    };
    bench.rooms.append(&room, intent).await.unwrap();
    assert_eq!(unread(&bench, &room).await.main, counts(0, 0));
}

#[tokio::test]
async fn receipts_end_what_is_unread_and_are_news() {
    let (bench, room) = stage().await;
    let mut said = Vec::new();
    for text in ["1", "2", "3", "4"] {
        said.push(bench.say(&user("alice"), &room, text).await);
    }
    for (kind, event, left) in [
        (ReceiptKind::Read, 0, 3),
        (ReceiptKind::Private, 2, 1),
        // Behind the private one: seen by others, and nothing is unread again.
        (ReceiptKind::Read, 1, 1),
        (ReceiptKind::Read, 3, 0),
    ] {
        let since = bench.sync(&user("bob"), None).await.next_batch;
        read(&bench, &room, kind, &said[event], "").await;
        let view = bench.sync(&user("bob"), Some(since)).await;
        let section = &view.join[&room];
        assert_eq!(section.unread.total(), counts(left, 0), "{event}");
        assert!(section.timeline.events.is_empty() && section.state.is_empty());
        assert!(!section.timeline.limited && section.summary.is_none());
    }
    // Another's receipt is told of, and is no news of that kind.
    let since = bench.sync(&user("carol"), None).await.next_batch;
    read(&bench, &room, ReceiptKind::Read, &said[3], "main").await;
    let view = bench.sync(&user("carol"), Some(since)).await;
    assert!(view.join.is_empty() && !view.is_empty());
    assert_eq!(bench.sync(&user("carol"), None).await.join[&room].unread.main, counts(4, 0));
}

/// A change of the profile is a join that joins nothing.
#[tokio::test]
async fn a_new_name_reads_nothing() {
    let (bench, room) = stage().await;
    bench.say(&user("alice"), &room, "unread").await;
    let since = bench.sync(&user("bob"), None).await.next_batch;
    let content = object(json!({ "membership": "join", "displayname": "Bobby" }));
    let intent = Intent::state(user("bob"), "m.room.member", user("bob"), content);
    bench.rooms.append(&room, intent).await.unwrap();
    assert_eq!(unread(&bench, &room).await.main, counts(1, 0));
    let view = bench.sync(&user("bob"), Some(since)).await;
    assert!(!view.joined[&room] && view.join[&room].timeline.events.len() == 1);
    // One who has left and comes back begins anew.
    bench.leave(&user("bob"), &room).await;
    bench.say(&user("alice"), &room, "missed").await;
    bench.join(&user("bob"), &room).await;
    assert_eq!(unread(&bench, &room).await.main, counts(0, 0));
}

#[tokio::test]
async fn threads_are_read_apart() {
    let (bench, room) = stage().await;
    let alice = user("alice");
    let relate = async |kind: &str, rel_type: &str, to: &OwnedEventId| {
        let relation = json!({ "rel_type": rel_type, "event_id": to });
        let content = json!({ "body": "x", "m.relates_to": relation });
        send(&bench, &alice, &room, kind, content).await
    };
    let root = bench.say(&alice, &room, "root").await;
    let first = relate("m.room.message", "m.thread", &root).await;
    let reference = relate("m.room.message", "m.reference", &first).await;
    relate("m.room.message", "m.reference", &root).await;
    let found = unread(&bench, &room).await;
    assert_eq!((found.main, found.threads[&root]), (counts(2, 0), counts(2, 0)));
    assert_eq!((found.total(), found.threads.len()), (counts(4, 0), 1));

    read(&bench, &room, ReceiptKind::Read, &reference, "main").await;
    let found = unread(&bench, &room).await;
    assert_eq!((found.main, found.threads[&root]), (counts(1, 0), counts(2, 0)));
    read(&bench, &room, ReceiptKind::Private, &first, root.as_str()).await;
    assert_eq!(unread(&bench, &room).await.threads[&root], counts(1, 0));
    read(&bench, &room, ReceiptKind::Read, &reference, "").await;
    let found = unread(&bench, &room).await;
    assert_eq!((found.main, found.threads.len()), (counts(1, 0), 0));
}

#[tokio::test]
async fn so_many_are_counted() {
    let (bench, room) = stage().await;
    for n in 0..MAX_UNREAD + 5 {
        bench.say(&user("alice"), &room, &n.to_string()).await;
    }
    assert_eq!(unread(&bench, &room).await.main, counts(MAX_UNREAD as u64, 0));
}

/// Rules without end and messages without end: a sync asks so much of them and no more, and the
/// next one goes on.
#[tokio::test]
async fn rules_are_asked_so_much_in_one_sync() {
    let (bench, room) = stage().await;
    let bob = user("bob");
    let long = "x".repeat(50_000);
    for _ in 0..9 {
        bench.say(&user("alice"), &room, &long).await;
    }
    let silent = |n: usize| json!({ "rule_id": format!("@{n}:x"), "default": false, "enabled": true, "actions": [] });
    let mut rules: Vec<_> = (0..1_000).map(silent).collect();
    rules.push(
        json!({ "rule_id": user("alice"), "default": false, "enabled": true, "actions": [] }),
    );
    bench.account_data(&bob, "m.push_rules", json!({ "global": { "sender": rules } })).await;
    let mut left = Vec::new();
    for _ in 0..4 {
        left.push(unread(&bench, &room).await.main.notifications);
    }
    assert_eq!(left, [6, 3, 0, 0]);
}
