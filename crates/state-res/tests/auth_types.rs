//! Which state an event cites.

mod support;

use std::collections::BTreeSet;

use exeunt_core::{Object, RoomVersion, StateKey};
use exeunt_state_res::auth_types;
use proptest::prelude::*;
use ruma::events::TimelineEventType;
use ruma::{OwnedUserId, UserId};
use serde_json::{json, value::to_raw_value};
use support::{object, version};

fn user() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["@a:one", "@b:one", "@c:two"]).prop_map(str::to_owned)
}

fn content() -> impl Strategy<Value = Object> {
    let memberships = vec!["join", "invite", "leave", "ban", "knock", "odd"];
    let token = prop::option::of(prop::sample::select(vec!["", "t", "@a:one"]));
    let membership = prop::option::of(prop::sample::select(memberships));
    (membership, prop::option::of(user()), token).prop_map(|(membership, authoriser, token)| {
        let mut content = Object::new();
        content.extend(membership.map(|m| ("membership".to_owned(), m.into())));
        content.extend(authoriser.map(|u| ("join_authorised_via_users_server".into(), u.into())));
        content
            .extend(token.map(|t| ("third_party_invite".into(), json!({"signed": {"token": t}}))));
        content
    })
}

fn kind() -> impl Strategy<Value = &'static str> {
    let kinds = ["m.room.member", "m.room.create", "m.room.power_levels", "m.room.message"];
    prop_oneof![3 => Just(kinds[0]), 1 => prop::sample::select(kinds.to_vec())]
}

proptest! {
    #[test]
    fn no_key_twice_and_as_ruma(
        at in 0_usize..12,
        kind in kind(),
        sender in user(),
        state_key in prop::option::of(user()),
        content in content(),
    ) {
        let version: RoomVersion = RoomVersion::all().nth(at).expect("twelve versions");
        let sender: OwnedUserId = UserId::parse(sender).expect("a user id");
        let keys = auth_types(version, kind, &sender, state_key.as_deref(), &content);
        let unique: BTreeSet<StateKey> = keys.iter().cloned().collect();
        prop_assert_eq!(unique.len(), keys.len(), "{:?}", keys);

        let theirs = ruma_state_res::auth_types_for_event(
            &TimelineEventType::from(kind),
            &sender,
            state_key.as_deref(),
            &to_raw_value(&content).expect("an object"),
            &version.rules().authorization,
        );
        // ruma has no answer for malformed member events.
        if let Ok(theirs) = theirs {
            let theirs: BTreeSet<StateKey> =
                theirs.into_iter().map(|(kind, key)| StateKey::new(kind.to_string(), key)).collect();
            prop_assert_eq!(unique, theirs);
        }
    }
}

#[test]
fn by_membership() {
    let names = |id: &str, sender: &str, target: &str, content| -> Vec<String> {
        let sender = <&UserId>::try_from(sender).expect("a user id");
        auth_types(version(id), "m.room.member", sender, Some(target), &object(content))
            .into_iter()
            .map(|key| format!("{} {}", key.kind.trim_start_matches("m.room."), key.key))
            .collect()
    };
    let leave = names("11", "@a:one", "@a:one", json!({"membership": "leave"}));
    assert_eq!(leave, ["create ", "power_levels ", "member @a:one"]);
    let leave = names("12", "@a:one", "@a:one", json!({"membership": "leave"}));
    assert_eq!(leave, ["power_levels ", "member @a:one"]);
    let kick = names("12", "@a:one", "@b:one", json!({"membership": "leave"}));
    assert_eq!(kick, ["power_levels ", "member @a:one", "member @b:one"]);
    let knock = names("12", "@a:one", "@a:one", json!({"membership": "knock"}));
    assert_eq!(knock, ["power_levels ", "member @a:one", "join_rules "]);
    let by = json!({"membership": "join", "join_authorised_via_users_server": "@c:two"});
    let join = names("8", "@a:one", "@a:one", by.clone());
    assert_eq!(join, ["create ", "power_levels ", "member @a:one", "join_rules ", "member @c:two"]);
    let join = names("7", "@a:one", "@a:one", by);
    assert_eq!(join, ["create ", "power_levels ", "member @a:one", "join_rules "]);
    let token = json!({"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}});
    let invite = names("12", "@a:one", "@b:one", token);
    let expected =
        ["power_levels ", "member @a:one", "member @b:one", "join_rules ", "third_party_invite t"];
    assert_eq!(invite, expected);
}
