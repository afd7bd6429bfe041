//! Names, signers and templates that the tests share.
#![allow(dead_code)]

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{
    CheckedPdu, Draft, FormatError, Object, Pdu, PendingMembership, Reference, RoomVersion, Signer,
};
use exeunt_membership::OwnMember;
use serde_json::{Value, json};

pub const OURS: &str = "ours.example";
pub const THEIRS: &str = "theirs.example";
pub const ROOM: &str = "!room:theirs.example";
pub const NOW: u64 = 1_700_000_000_000;

pub fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

pub fn user(id: &str) -> OwnedUserId {
    id.try_into().unwrap()
}

pub fn us() -> OwnedUserId {
    user("@us:ours.example")
}

pub fn inviter() -> OwnedUserId {
    user("@inviter:theirs.example")
}

pub fn room() -> OwnedRoomId {
    ROOM.try_into().unwrap()
}

pub fn signer(name: &str) -> Signer {
    Signer::new(server(name), "ed25519:a", &[7; 32]).unwrap()
}

/// Signs what a handshake asks for.
pub fn sign(event: OwnMember) -> Result<CheckedPdu, FormatError> {
    event.into_draft().sign(&signer(OURS))
}

pub fn version(id: &str) -> RoomVersion {
    RoomVersion::parse(id).unwrap()
}

pub fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

/// An event id as room versions 3 and later have them.
pub fn id(seed: char) -> String {
    format!("${}", seed.to_string().repeat(43))
}

/// What a make_leave or make_join of an honest server answers.
pub fn template(membership: &str) -> Value {
    json!({
        "room_version": "10",
        "event": {
            "type": "m.room.member",
            "room_id": ROOM,
            "sender": us(),
            "state_key": us(),
            "content": { "membership": membership },
            "prev_events": [id('p'), id('q')],
            "auth_events": [id('a'), id('b'), id('c')],
            "depth": 12,
            "origin": THEIRS,
            "origin_server_ts": 1,
        },
    })
}

/// A member event by `sender` about `target`, signed by the sender's server.
pub fn member(
    sender: &OwnedUserId,
    target: &str,
    membership: &str,
    auth_events: &[&str],
) -> CheckedPdu {
    event(sender, "m.room.member", Some(target), json!({ "membership": membership }), auth_events)
}

/// A reference to an event whose id is a hash.
pub fn reference(id: &str) -> Reference {
    OwnedEventId::try_from(id).unwrap().into()
}

pub fn event(
    sender: &OwnedUserId,
    kind: &str,
    state_key: Option<&str>,
    content: Value,
    auth_events: &[&str],
) -> CheckedPdu {
    let ids = |ids: &[&str]| ids.iter().map(|id| reference(id)).collect();
    let draft = Draft {
        version: version("10"),
        room_id: Some(room()),
        sender: sender.clone(),
        kind: kind.into(),
        state_key: state_key.map(Into::into),
        content: object(content),
        redacts: None,
        prev_events: ids(&[&id('p')]),
        auth_events: ids(auth_events),
        depth: 12,
        origin_server_ts: NOW,
    };
    draft.sign(&signer(sender.server_name().as_str())).unwrap()
}

/// The event with some top-level fields set anew: well-formed, but no longer signed.
pub fn with(pdu: &Pdu, changes: Value) -> Pdu {
    let mut changed = pdu.object().clone();
    changed.extend(object(changes));
    Pdu::from_object(pdu.version(), changed).unwrap()
}

pub fn invite() -> CheckedPdu {
    member(&inviter(), us().as_str(), "invite", &[])
}

pub fn pending() -> PendingMembership {
    PendingMembership {
        user_id: us(),
        room_id: room(),
        membership: "invite".into(),
        room_version: "10".into(),
        event: invite().object().clone(),
        stripped_state: Vec::new(),
        sender: inviter(),
        delivered_by: Some(server(THEIRS)),
        candidates: Vec::new(),
        received_at: NOW,
    }
}

pub fn pending_knock() -> PendingMembership {
    let knock = member(&us(), us().as_str(), "knock", &[]);
    PendingMembership {
        membership: "knock".into(),
        event: knock.object().clone(),
        sender: us(),
        delivered_by: Some(server("knocked.example")),
        ..pending()
    }
}
