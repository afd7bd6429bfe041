//! Stripped state as other servers give it with an invite or a knock.
//!
//! By the specification every entry is a whole event of the room, the create event among them
//! (MSC4311). Many servers send only the four fields of stripped state; that is taken as well,
//! but in rooms whose id is the hash of the create event, that event must be there and be the one.
//! Of whole events the signatures count, as far as keys can be had at once: anybody could make up
//! the four fields, so that what cannot be checked is worth no less.

use std::collections::BTreeSet;

use exeunt_core::{Object, Pdu, RoomVersion, hash};
use ruma::{RoomId, UserId};
use serde_json::Value;

use crate::{RoomError, Rooms};

/// Most entries of `invite_room_state` or `knock_room_state` that are kept (CVE-2023-32323).
pub const MAX_INVITE_STATE_EVENTS: usize = 100;
/// Most bytes of `invite_room_state` or `knock_room_state` that are kept, in JSON.
pub const MAX_INVITE_STATE_BYTES: usize = 128 * 1024;

const CREATE: &str = "m.room.create";

impl Rooms {
    /// The entries without whole events that were not signed by those in whose names they are. An
    /// invite without the create event that it needs is refused.
    pub(crate) async fn check_invite_state(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        state: &Value,
    ) -> Result<Vec<Object>, RoomError> {
        check_create(version, room_id, state)?;
        let authentic = self.authentic(version, room_id, state).await?;
        check_create(version, room_id, &authentic)
            .map_err(|_| RoomError::InvalidParam("The create event is not its sender's".into()))?;
        Ok(clean_state(version, room_id, &authentic))
    }

    /// The same for what comes with a knock, which nothing makes fail.
    pub(crate) async fn check_knock_state(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        state: &Value,
    ) -> Result<Vec<Object>, RoomError> {
        Ok(clean_state(version, room_id, &self.authentic(version, room_id, state).await?))
    }

    async fn authentic(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        state: &Value,
    ) -> Result<Value, RoomError> {
        let (mut kept, mut whole) = (Vec::new(), Vec::new());
        for entry in entries(state) {
            match entry.as_object().filter(|_| is_whole(entry)) {
                // What does not parse is dropped as no event of the room.
                Some(object) => whole.extend(Pdu::from_object(version, object.clone())),
                None => kept.push(entry.clone()),
            }
        }
        let forged = self.keys().forged(&whole).await?;
        for (event, forged) in whole.into_iter().zip(forged) {
            if forged {
                tracing::info!(
                    %room_id, sender = %event.sender(), kind = event.kind(),
                    "a state event that was shown is not its sender's, dropped"
                );
            } else {
                kept.push(Value::Object(event.object().clone()));
            }
        }
        Ok(Value::Array(kept))
    }
}

/// Refuses an invite to a room that may not be the one it is said to be: in a room of version 12
/// the create event must come with it, and found the room.
fn check_create(version: RoomVersion, room_id: &RoomId, state: &Value) -> Result<(), RoomError> {
    if !version.room_id_is_create_hash() {
        return Ok(());
    }
    let mut creates = entries(state).filter(|entry| entry["type"] == CREATE).peekable();
    if creates.peek().is_none() {
        return Err(RoomError::MissingParam("The create event is missing".into()));
    }
    if creates.any(|create| is_of_room(version, room_id, create)) {
        return Ok(());
    }
    Err(RoomError::InvalidParam("The create event is not the room's".into()))
}

fn entries(state: &Value) -> impl Iterator<Item = &Value> {
    state.as_array().into_iter().flatten().take(MAX_INVITE_STATE_EVENTS)
}

/// Whether the entry is a whole event of the room, as its sender made it.
fn is_of_room(version: RoomVersion, room_id: &RoomId, entry: &Value) -> bool {
    let Some(object) = entry.as_object() else { return false };
    let pdu = Pdu::from_object(version, object.clone());
    pdu.is_ok_and(|pdu| pdu.room_id() == room_id) && hash::content_hash_holds(object)
}

/// Whether the entry claims to be a whole event, rather than the four fields.
fn is_whole(entry: &Value) -> bool {
    ["hashes", "signatures", "auth_events"].iter().any(|field| entry.get(field).is_some())
}

/// Whether the entry may be about the room, as far as one can see.
fn may_be_of_room(version: RoomVersion, room_id: &RoomId, entry: &Value) -> bool {
    let must_be_whole = version.room_id_is_create_hash() && entry["type"] == CREATE;
    if must_be_whole || is_whole(entry) {
        return is_of_room(version, room_id, entry);
    }
    entry.get("room_id").is_none_or(|id| id == room_id.as_str())
}

/// What is usable of `invite_room_state` or `knock_room_state`: within the limits, one entry per state key, and of each
/// only what stripped state has. A bad entry never fails the invite.
pub(crate) fn clean_state(version: RoomVersion, room_id: &RoomId, state: &Value) -> Vec<Object> {
    let mut out = Vec::new();
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for entry in entries(state) {
        let usable = clean_entry(entry).filter(|_| may_be_of_room(version, room_id, entry));
        let Some((key, clean)) = usable else {
            tracing::debug!(%room_id, "an entry is no stripped state of the room, dropped");
            continue;
        };
        bytes += Value::Object(clean.clone()).to_string().len();
        if bytes > MAX_INVITE_STATE_BYTES {
            tracing::debug!(%room_id, "the stripped state is too large, the rest is dropped");
            break;
        }
        if keys.insert(key) {
            out.push(clean);
        }
    }
    out
}

/// What stripped state has of an entry, and its key; `None` for what is no state event.
pub(crate) fn clean_entry(entry: &Value) -> Option<((String, String), Object)> {
    let text = |field| entry.get(field).and_then(Value::as_str);
    let (kind, state_key) = (text("type")?, text("state_key")?);
    let sender = <&UserId>::try_from(text("sender")?).ok()?;
    let content = entry.get("content").filter(|content| content.is_object())?;
    let mut clean = Object::new();
    clean.insert("type".into(), kind.into());
    clean.insert("state_key".into(), state_key.into());
    clean.insert("sender".into(), sender.as_str().into());
    clean.insert("content".into(), content.clone());
    if let Some(at) = entry.get("origin_server_ts").filter(|at| at.is_u64()) {
        clean.insert("origin_server_ts".into(), at.clone());
    }
    Some(((kind.to_owned(), state_key.to_owned()), clean))
}

#[cfg(test)]
mod tests {
    use exeunt_core::{Draft, Signer};
    use ruma::{OwnedRoomId, OwnedServerName};
    use serde_json::json;

    use super::*;

    fn entry(kind: &str, key: &str) -> Value {
        json!({ "type": kind, "state_key": key, "sender": "@a:a.example", "content": {} })
    }

    fn clean(state: &Value) -> Vec<Object> {
        let room_id = <&RoomId>::try_from("!room:a.example").unwrap();
        clean_state(RoomVersion::parse("10").unwrap(), room_id, state)
    }

    /// CVE-2024-52815: wrong JSON types are dropped, one by one.
    #[test]
    fn entries_of_wrong_types_are_dropped() {
        for (field, value) in [
            ("type", json!(1)),
            ("type", json!(null)),
            ("state_key", json!([])),
            ("state_key", json!(null)),
            ("sender", json!({})),
            ("sender", json!("nobody")),
            ("content", json!("text")),
            ("content", json!([])),
        ] {
            let mut bad = entry("m.room.topic", "");
            bad[field] = value;
            let state = json!([bad, entry("m.room.name", "")]);
            let kept = clean(&state);
            assert_eq!(kept.len(), 1, "{state}");
            assert_eq!(kept[0]["type"], "m.room.name");
        }
        for state in [json!(null), json!({}), json!("x"), json!(5), json!([1, "x", null, []])] {
            assert!(clean(&state).is_empty(), "{state}");
        }
    }

    /// A create event, signed by its server, and the room that it founds.
    fn founded(version: &str) -> (RoomVersion, OwnedRoomId, Value) {
        let version = RoomVersion::parse(version).unwrap();
        let server = OwnedServerName::try_from("a.example").unwrap();
        let signer = Signer::new(server, "ed25519:a", &[7; 32]).unwrap();
        let room_id = RoomId::parse("!room:a.example").unwrap();
        let draft = Draft {
            version,
            room_id: (!version.room_id_is_create_hash()).then_some(room_id),
            sender: UserId::parse("@a:a.example").unwrap(),
            kind: CREATE.into(),
            state_key: Some(String::new()),
            content: json!({ "room_version": version.as_str(), "creator": "@a:a.example" })
                .as_object()
                .unwrap()
                .clone(),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: 5,
        };
        let create = draft.sign(&signer).unwrap();
        (version, create.room_id().to_owned(), create.object().clone().into())
    }

    #[test]
    fn of_whole_events_only_stripped_state_is_kept() {
        for version in ["1", "10", "11", "12"] {
            let (version, room_id, create) = founded(version);
            let kept = clean_state(version, &room_id, &json!([create]));
            let keys: Vec<_> = kept[0].keys().map(String::as_str).collect();
            assert_eq!(keys.len(), 5);
            assert!(!keys.contains(&"signatures") && keys.contains(&"origin_server_ts"));
        }
    }

    /// MSC4311: in version 12 the create event proves which room it is.
    #[test]
    fn the_create_event_must_found_a_room_of_version_12() {
        let (version, room_id, create) = founded("12");
        let check = |state: Value| check_create(version, &room_id, &state);
        let name = entry("m.room.name", "");
        check(json!([name, create])).unwrap();
        for absent in [json!([]), json!(null), json!([name]), json!({ "a": create }), json!([1])] {
            assert!(matches!(check(absent), Err(RoomError::MissingParam(_))));
        }
        let mut other = create.clone();
        other["origin_server_ts"] = 6.into();
        let four = json!({ "type": CREATE, "state_key": "", "sender": create["sender"],
            "content": create["content"] });
        for wrong in [other, four] {
            assert!(matches!(check(json!([wrong])), Err(RoomError::InvalidParam(_))));
            assert!(clean_state(version, &room_id, &json!([wrong])).is_empty());
            let both = clean_state(version, &room_id, &json!([wrong, create]));
            assert_eq!(both[0]["origin_server_ts"], 5);
        }
        for older in ["1", "10", "11"] {
            let (version, room_id, create) = founded(older);
            check_create(version, &room_id, &json!([])).unwrap();
            let four = json!({ "type": CREATE, "state_key": "", "sender": create["sender"],
                "content": create["content"] });
            assert_eq!(clean_state(version, &room_id, &json!([four])).len(), 1);
        }
    }

    /// An event of another room, or one that was changed, is dropped; the others stay.
    #[test]
    fn whole_events_that_are_not_the_rooms_are_dropped() {
        let (version, room_id, create) = founded("10");
        let changed = |field: &str, value: Value| {
            let mut event = create.clone();
            event[field] = value;
            event
        };
        for bad in [
            changed("room_id", json!("!other:a.example")),
            changed("content", json!({ "creator": "@mallory:a.example" })),
            changed("depth", json!("1")),
            changed("hashes", json!({})),
        ] {
            let kept = clean_state(version, &room_id, &json!([bad, entry("m.room.name", "")]));
            assert_eq!(kept.len(), 1, "{bad}");
        }
        let mut elsewhere = entry("m.room.topic", "");
        elsewhere["room_id"] = "!other:a.example".into();
        assert!(clean_state(version, &room_id, &json!([elsewhere])).is_empty());
    }

    /// CVE-2023-32323: count and bytes are bounded; of two entries with one key the first counts.
    #[test]
    fn invite_state_is_bounded() {
        let many: Vec<_> = (0..1000).map(|i| entry("m.room.member", &i.to_string())).collect();
        assert_eq!(clean(&many.into()).len(), MAX_INVITE_STATE_EVENTS);
        let mut large = entry("m.room.topic", "");
        large["content"] = json!({ "topic": "x".repeat(MAX_INVITE_STATE_BYTES) });
        let kept = clean(&json!([entry("m.room.name", ""), large]));
        assert_eq!(kept.len(), 1);
        let twice = json!([entry("m.room.name", ""), entry("m.room.name", "")]);
        assert_eq!(clean(&twice).len(), 1);
    }
}
