//! Events that a hostile server makes: right but for what the step asks.

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{Object, RoomVersion, Signer, canonical::MAX_INT, hash, redact};
use exeunt_room::graph::Graph;
use exeunt_sim::Server;
use serde_json::{Value, json};

use crate::program::{Auth, Damage, Step, When};

/// Fields that a step may take away or spoil.
const FIELDS: [&str; 12] = [
    "type",
    "sender",
    "room_id",
    "content",
    "state_key",
    "prev_events",
    "auth_events",
    "depth",
    "origin_server_ts",
    "hashes",
    "signatures",
    "origin",
];
/// Bytes of a content that is too large for an event.
const TOO_LARGE: usize = 66_000;
const TIME: i64 = 1_700_000_000_000;

/// What there is to refer to.
pub struct Maker<'a> {
    pub version: RoomVersion,
    pub room: OwnedRoomId,
    /// A room that the hostile server is not in.
    pub other: OwnedRoomId,
    /// Senders and targets: moderator, user, stranger, users of other servers.
    pub users: Vec<OwnedUserId>,
    /// The hostile server's key.
    pub signer: &'a Signer,
    /// Somebody else's key, for signatures that do not hold.
    pub stranger: Signer,
    /// Every event that can be named: of the room, of the other one, of earlier steps, unknown.
    pub ids: Vec<OwnedEventId>,
}

impl Maker<'_> {
    /// An event as `step` asks for it, upon the room as `server` has it.
    pub fn make(&self, step: &Step, server: &Server) -> Object {
        let pick = |users: &[OwnedUserId], n: u8| users[usize::from(n) % users.len()].clone();
        let (sender, target) = (pick(&self.users, step.sender), pick(&self.users, step.target));
        let (kind, state_key, content) = self.substance(step, &sender, &target);
        let (mut prev, mut auth, head) = server.graph(&self.room, |graph| {
            let keys = auth_keys(kind, &sender, state_key.as_deref(), &content);
            (graph.room.extremities.clone(), self.current(graph, &keys), graph.room.depth)
        });
        // The upper bits say how many events it names, the lower ones which.
        let [first, second] = step.prev;
        match first >> 6 {
            0 => {}
            1 => prev = vec![self.id(first), self.id(second)],
            2 => prev = vec![self.id(first)],
            _ => prev.extend([self.id(first), self.id(second)]),
        }
        match step.auth {
            Auth::Right => {}
            Auth::Without(n) if !auth.is_empty() => {
                auth.remove(usize::from(n) % auth.len());
            }
            Auth::With(n) => auth.push(self.id(n.wrapping_add(step.value))),
            Auth::Twice => auth.extend(auth.clone()),
            Auth::None | Auth::Without(_) => auth.clear(),
            Auth::Many => auth.extend(self.ids.iter().take(11).cloned()),
        }
        let (depth, shift) = match step.when {
            When::Next => (head.saturating_add(1), i64::from(step.value)),
            When::Shifted(by) => (head.saturating_add_signed(by.into()), i64::from(by) * 1000),
            When::Zero => (0, -TIME),
            When::Largest => (MAX_INT as u64, MAX_INT - TIME),
            When::BeyondLargest => (u64::MAX, 0),
        };
        let mut event = json!({
            "type": kind,
            "sender": sender,
            "room_id": self.room,
            "origin": sender.server_name(),
            "content": content,
            "prev_events": prev,
            "auth_events": auth,
            "depth": depth,
            "origin_server_ts": TIME + shift,
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        if kind == "m.room.redaction" && !self.version.rules().redaction.content_field_redacts {
            event["redacts"] = self.id(step.value).as_str().into();
        }
        if kind == "m.room.create" {
            event["prev_events"] = json!([]);
        }
        self.finish(step, event)
    }

    /// Hashes and signs, and does the damage.
    fn finish(&self, step: &Step, mut event: Value) -> Object {
        match step.damage {
            Damage::OtherRoom => event["room_id"] = self.other.as_str().into(),
            Damage::NoRoom => event["room_id"] = "!nowhere:a.example".into(),
            Damage::Float => event["content"]["float"] = json!(1.5),
            Damage::Large => event["content"]["large"] = "x".repeat(TOO_LARGE).into(),
            _ => {}
        }
        let mut event = object(event);
        hash::set_content_hash(&mut event);
        match step.damage {
            Damage::Unsigned => {
                event.insert("signatures".into(), json!({}));
            }
            Damage::WrongKey => self.sign(&mut event, &self.stranger),
            _ => self.sign(&mut event, self.signer),
        }
        let field = |n: u8| FIELDS[usize::from(n) % FIELDS.len()];
        match step.damage {
            Damage::Hash => {
                event.insert("content".into(), json!({ "membership": "join", "changed": true }));
            }
            Damage::Lacks(n) => {
                event.remove(field(n));
            }
            Damage::Mistyped(n) => {
                let odd = [json!(null), json!(-1), json!([[]]), json!({ "a": {} }), json!("")];
                let odd = odd[usize::from(step.value) % odd.len()].clone();
                event.insert(field(n).into(), odd);
            }
            _ => {}
        }
        event
    }

    fn sign(&self, event: &mut Object, signer: &Signer) {
        let mut redacted = redact::redact(self.version, event);
        signer.sign_object(&mut redacted);
        event.insert("signatures".into(), redacted["signatures"].clone());
    }

    /// Type, state key and content.
    fn substance(
        &self,
        step: &Step,
        sender: &OwnedUserId,
        target: &OwnedUserId,
    ) -> (&'static str, Option<String>, Value) {
        let n = step.value;
        let member =
            |user: &OwnedUserId, content: Value| ("m.room.member", Some(user.to_string()), content);
        let state = |kind, content: Value| (kind, Some(String::new()), content);
        match step.kind % 18 {
            0 => ("m.room.message", None, json!({ "body": n.to_string() })),
            1 => state("m.room.topic", json!({ "topic": n.to_string() })),
            2 => state("m.room.name", json!({ "name": n })),
            3 => member(sender, json!({ "membership": "join", "displayname": n.to_string() })),
            4 => member(sender, json!({ "membership": "leave" })),
            5 => member(target, json!({ "membership": "leave" })),
            6 => member(target, json!({ "membership": "ban" })),
            7 => member(target, json!({ "membership": "invite" })),
            8 => member(target, json!({ "membership": "join" })),
            9 => member(sender, json!({ "membership": "knock" })),
            10 => {
                let authoriser = "join_authorised_via_users_server";
                member(sender, json!({ "membership": "join", authoriser: target }))
            }
            11 => {
                let signed = json!({ "mxid": target, "token": n.to_string(), "signatures": {} });
                let invite = json!({ "display_name": "x", "signed": signed });
                member(target, json!({ "membership": "invite", "third_party_invite": invite }))
            }
            12 => {
                let users = json!({ sender.as_str(): 100, target.as_str(): i64::from(n) - 100 });
                state("m.room.power_levels", json!({ "users": users, "users_default": n }))
            }
            13 => {
                let rule = ["public", "invite", "restricted", "knock", "odd"];
                let rule = rule[usize::from(n) % rule.len()];
                state("m.room.join_rules", json!({ "join_rule": rule }))
            }
            14 => state(
                "m.room.create",
                json!({ "creator": sender, "room_version": self.version.as_str() }),
            ),
            15 => ("m.room.redaction", None, json!({ "redacts": self.id(n), "reason": "x" })),
            16 => {
                let deny = ["a.example", "b.example", "*", "x"];
                let deny = deny[usize::from(n) % deny.len()];
                state("m.room.server_acl", json!({ "allow": ["*"], "deny": [deny] }))
            }
            _ => ("org.example.odd", Some(target.to_string()), json!({ "n": n, "deep": [[[{}]]] })),
        }
    }

    fn current(&self, graph: &Graph<'_>, keys: &[(&str, String)]) -> Vec<OwnedEventId> {
        let mut ids = Vec::new();
        for (kind, key) in keys {
            if *kind == "m.room.create" && self.version.room_id_is_create_hash() {
                continue;
            }
            let event = graph.current(kind, key).expect("the state reads");
            ids.extend(event.map(|event| event.event_id().to_owned()));
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// Any event that can be named.
    pub fn id(&self, n: u8) -> OwnedEventId {
        // The latest ones first: forks are made near the head.
        self.ids[self.ids.len() - 1 - usize::from(n & 0x3f) % self.ids.len()].clone()
    }
}

/// The state that the rules ask for (server-server API, "Auth events selection").
fn auth_keys(
    kind: &str,
    sender: &OwnedUserId,
    state_key: Option<&str>,
    content: &Value,
) -> Vec<(&'static str, String)> {
    if kind == "m.room.create" {
        return Vec::new();
    }
    let mut keys = vec![
        ("m.room.create", String::new()),
        ("m.room.power_levels", String::new()),
        ("m.room.member", sender.to_string()),
    ];
    if kind == "m.room.member" {
        keys.push(("m.room.member", state_key.unwrap_or_default().to_owned()));
        if ["join", "invite", "knock"].iter().any(|m| content["membership"] == **m) {
            keys.push(("m.room.join_rules", String::new()));
        }
        if let Some(user) = content["join_authorised_via_users_server"].as_str() {
            keys.push(("m.room.member", user.to_owned()));
        }
    }
    keys
}

pub fn object(value: Value) -> Object {
    value.as_object().cloned().expect("an object")
}
