//! Events made by hand: what a hostile or a merely odd server sends.

use exeunt_core::{
    CheckedPdu, Draft, Object, Pdu, Reference, Signer, hash, redact,
    ruma::{EventId, RoomId, UserId},
};
use exeunt_room::{graph::Graph, inbound::Transaction};
use serde_json::{Value, json};

use crate::Server;

/// A member event on the head of the room as `resident` has it, of a user of `signer`, with auth
/// events as the rules want them for a leave. Not placed anywhere.
pub fn member_draft(
    resident: &Server,
    room: &RoomId,
    sender: &UserId,
    target: &UserId,
    membership: &str,
) -> Draft {
    resident.graph(room, |graph| {
        let keys = [
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.join_rules", ""),
            ("m.room.member", sender.as_str()),
            ("m.room.member", target.as_str()),
        ];
        Draft {
            version: graph.version,
            room_id: Some(room.to_owned()),
            sender: sender.to_owned(),
            kind: "m.room.member".into(),
            state_key: Some(target.as_str().into()),
            content: object(json!({ "membership": membership })),
            redacts: None,
            prev_events: graph
                .room
                .extremities
                .iter()
                .map(|id| Reference::from(&graph.event_here(id).expect("it is there").pdu))
                .collect(),
            auth_events: auth_events(graph, membership, &keys),
            depth: graph.room.depth + 1,
            origin_server_ts: 1_700_000_000_000,
        }
    })
}

/// A message on the head of the room as `resident` has it. Not placed anywhere.
pub fn message_draft(resident: &Server, room: &RoomId, sender: &UserId, text: &str) -> Draft {
    let draft = member_draft(resident, room, sender, sender, "leave");
    let content = object(json!({ "msgtype": "m.text", "body": text }));
    Draft { kind: "m.room.message".into(), state_key: None, content, ..draft }
}

/// The same for a state event with an empty state key.
pub fn state_draft(
    resident: &Server,
    room: &RoomId,
    sender: &UserId,
    kind: &str,
    content: Value,
) -> Draft {
    let draft = member_draft(resident, room, sender, sender, "leave");
    let (kind, state_key) = (kind.to_owned(), Some(String::new()));
    Draft { kind, state_key, content: object(content), ..draft }
}

/// An event as transactions carry it.
pub fn wire(event: &Pdu) -> Value {
    Value::Object(event.object().clone())
}

/// An event as transactions carry it, with these servers' signatures beside those that it has.
pub fn signed_by<'a>(event: &Pdu, signers: impl Iterator<Item = &'a Signer>) -> Value {
    let mut signed = redact::redact(event.version(), event.object());
    signers.for_each(|signer| signer.sign_object(&mut signed));
    let mut object = event.object().clone();
    object.insert("signatures".into(), signed["signatures"].clone());
    Value::Object(object)
}

fn auth_events(graph: &Graph<'_>, membership: &str, keys: &[(&str, &str)]) -> Vec<Reference> {
    let mut ids: Vec<Reference> = Vec::new();
    for (kind, key) in keys {
        let create = *kind == "m.room.create" && graph.version.room_id_is_create_hash();
        let rules =
            *kind == "m.room.join_rules" && !matches!(membership, "join" | "invite" | "knock");
        if create || rules {
            continue;
        }
        if let Some(event) = graph.current(kind, key).expect("the state reads") {
            let id = Reference::from(&event);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    ids
}

impl Server {
    /// Hands events to this server in a transaction of `from`. The answer, by event id.
    pub async fn receive(&self, from: &Server, txn: &str, events: &[&Pdu]) -> Object {
        let pdus = events.iter().map(|event| wire(event)).collect();
        let transaction = Transaction { pdus, edus: Vec::new() };
        let answer = self.rooms.receive_transaction(&from.name, txn, transaction).await;
        answer.expect("the transaction is taken")
    }

    /// Signs an event of a user of this server.
    pub fn sign(&self, draft: Draft) -> CheckedPdu {
        draft.sign(&self.signer).expect("the event is well-formed")
    }

    /// Signs an event under an id of one's choice, as room versions 1 and 2 allow.
    pub fn sign_under(&self, draft: Draft, id: &EventId) -> CheckedPdu {
        let version = draft.version;
        let mut object = self.sign(draft).object().clone();
        object.insert("event_id".into(), id.as_str().into());
        hash::set_content_hash(&mut object);
        let mut signed = redact::redact(version, &object);
        self.signer.sign_object(&mut signed);
        object.insert("signatures".into(), signed["signatures"].clone());
        let pdu = Pdu::from_object(version, object).expect("the event is well-formed");
        CheckedPdu::trusted(pdu)
    }
}

/// The object of a JSON literal.
pub fn object(value: Value) -> Object {
    value.as_object().cloned().expect("an object")
}
