//! What random events say.

use exeunt_core::ruma::OwnedEventId;
use exeunt_core::{Object, Pdu, RoomVersion, Signer, StateKey, StateMap};
use serde_json::{Value, json};

use crate::build::{Shape, object, server_of};
use crate::{Rng, levels};

/// The first founds the room.
pub const USERS: [&str; 7] =
    ["@a:one", "@b:one", "@c:two", "@d:two", "@e:three", "@f:three", "@g:four"];
const TOKENS: [&str; 2] = ["token1", "token2"];
const JOIN_RULES: [&str; 8] =
    ["public", "public", "invite", "knock", "restricted", "knock_restricted", "private", "odd"];

/// What an event can be about: the state before it, and who vouches for third-party invites.
pub struct View<'a> {
    pub version: RoomVersion,
    pub state: &'a StateMap<Pdu>,
    pub recent: &'a [OwnedEventId],
    pub identity: &'a Signer,
}

impl View<'_> {
    fn membership(&self, user: &str) -> Option<&str> {
        self.state.get(&StateKey::new("m.room.member", user))?.membership()
    }

    fn with(&self, membership: &str) -> Vec<&'static str> {
        USERS.into_iter().filter(|user| self.membership(user) == Some(membership)).collect()
    }
}

/// The identity server's key.
pub fn identity() -> Signer {
    let server = "id".try_into().expect("a server name");
    Signer::new(server, "ed25519:1", &[7; 32]).expect("a key")
}

pub fn random(rng: &mut Rng, view: &View<'_>) -> Shape {
    let sender = some_user(rng, &view.with("join"), 85);
    let other = rng.pick(&USERS);
    match rng.below(100) {
        0..15 => join(rng, view),
        15..20 => Shape::member(sender, sender, "leave"),
        20..31 => Shape::member(sender, other, "invite"),
        31..40 => Shape::member(sender, other, "leave"),
        40..42 => Shape::member(sender, some_user(rng, &view.with("ban"), 90), "leave"),
        42..50 => Shape::member(sender, other, "ban"),
        50..54 => {
            let user = rng.pick(&USERS);
            Shape::member(user, user, "knock")
        }
        54..56 => decline(rng, view),
        56..70 => power_levels(rng, view, sender),
        70..78 => {
            let rule = rng.pick(&JOIN_RULES);
            Shape::state(sender, "m.room.join_rules", "", json!({"join_rule": rule}))
        }
        78..84 => {
            let kind = rng.pick(&["m.room.topic", "m.room.name"]);
            Shape::state(sender, kind, "", json!({"text": rng.below(1 << 20)}))
        }
        84..87 => {
            let owner = if rng.percent(70) { sender } else { other };
            Shape::state(sender, "x.own", owner, json!({"n": rng.below(9)}))
        }
        87..90 => {
            let server = server_of(if rng.percent(80) { sender } else { other });
            Shape::state(sender, "m.room.aliases", server, json!({"aliases": []}))
        }
        90..92 => third_party_token(rng, view, sender),
        92..95 => third_party_invite(rng, view, sender),
        95..97 => {
            let mut shape = Shape::message(sender, "m.room.redaction", json!({}));
            shape.redacts = Some(view.recent[rng.below(view.recent.len())].clone());
            shape
        }
        97 => odd(rng, view, sender, other),
        _ => Shape::message(sender, "m.room.message", json!({"n": rng.below(9)})),
    }
}

/// One of `users`, or anyone.
fn some_user(rng: &mut Rng, users: &[&'static str], chance: usize) -> &'static str {
    if users.is_empty() || !rng.percent(chance) { rng.pick(&USERS) } else { rng.pick(users) }
}

fn join(rng: &mut Rng, view: &View<'_>) -> Shape {
    let user = some_user(rng, &view.with("invite"), 40);
    let mut join = Shape::member(user, user, "join");
    if rng.percent(40) {
        let authoriser = some_user(rng, &view.with("join"), 80);
        join.content["join_authorised_via_users_server"] = authoriser.into();
    }
    if rng.percent(20) {
        join.content["displayname"] = rng.below(1 << 20).to_string().into();
    }
    join
}

/// Out of an invite or a knock.
fn decline(rng: &mut Rng, view: &View<'_>) -> Shape {
    let mut waiting = view.with("invite");
    waiting.extend(view.with("knock"));
    let user = some_user(rng, &waiting, 90);
    Shape::member(user, user, "leave")
}

fn power_levels(rng: &mut Rng, view: &View<'_>, sender: &'static str) -> Shape {
    let current = view.state.get(&StateKey::single("m.room.power_levels")).map(Pdu::content);
    let content = match current {
        Some(current) if rng.percent(85) => levels::changed(rng, view.version, current),
        _ => {
            let first = usize::from(!rng.percent(5));
            let users: Vec<(&str, i64)> = (0..rng.below(4))
                .map(|_| (USERS[first + rng.below(USERS.len() - first)], 50))
                .collect();
            levels::fresh(rng, view.version, &users)
        }
    };
    Shape::state(sender, "m.room.power_levels", "", content)
}

fn third_party_token(rng: &mut Rng, view: &View<'_>, sender: &'static str) -> Shape {
    let key = view.identity.public();
    let mut content = json!({"display_name": "x", "key_validity_url": "https://id/valid"});
    if rng.percent(50) {
        content["public_key"] = key.clone().into();
    }
    if rng.percent(60) {
        content["public_keys"] = json!([{"public_key": key}]);
    }
    Shape::state(sender, "m.room.third_party_invite", rng.pick(&TOKENS), content)
}

/// An invite that redeems a token, most often rightly.
fn third_party_invite(rng: &mut Rng, view: &View<'_>, sender: &'static str) -> Shape {
    let token = rng.pick(&TOKENS);
    let issued = view.state.get(&StateKey::new("m.room.third_party_invite", token));
    let issuer = issued.and_then(|event| USERS.into_iter().find(|user| event.sender() == *user));
    let sender = if rng.percent(85) { issuer.unwrap_or(sender) } else { sender };
    let target = rng.pick(&USERS);
    let named = if rng.percent(90) { target } else { rng.pick(&USERS) };
    let mut signed = object(json!({"mxid": named, "token": token}));
    view.identity.sign_object(&mut signed);
    if rng.percent(10) {
        signed.insert("mxid".into(), target.into());
        signed.insert("forged".into(), true.into());
    }
    let mut invite = Shape::member(sender, target, "invite");
    invite.content["third_party_invite"] = json!({"display_name": "x", "signed": signed});
    invite
}

/// What nobody should send.
fn odd(rng: &mut Rng, view: &View<'_>, sender: &'static str, other: &'static str) -> Shape {
    match rng.below(4) {
        0 => Shape::member(sender, other, "join"),
        1 => Shape::member(sender, other, "knock"),
        2 if !view.version.room_id_is_create_hash() => {
            Shape::state(sender, "m.room.create", "", json!({"creator": sender}))
        }
        _ => Shape::state(sender, "m.room.join_rules", "odd", json!({"join_rule": "public"})),
    }
}

/// The content of a create event.
pub fn create(rng: &mut Rng, version: RoomVersion) -> Value {
    let rules = &version.rules().authorization;
    let mut content = Object::new();
    content.insert("room_version".into(), version.as_str().into());
    content.insert("seed".into(), rng.below(1 << 20).into());
    if !rules.use_room_create_sender {
        content.insert("creator".into(), USERS[0].into());
    }
    if rules.additional_room_creators && rng.percent(50) {
        content.insert("additional_creators".into(), json!([USERS[1], USERS[2]]));
    }
    if rng.percent(4) {
        content.insert("m.federate".into(), rng.percent(20).into());
    }
    content.into()
}
