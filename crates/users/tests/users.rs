//! Accounts, sessions, devices, profiles, filters and account data over a store in memory.

use std::sync::Arc;

use exeunt_core::Object;
use exeunt_core::ruma::{DeviceId, device_id, room_id, server_name, user_id};
use exeunt_store::{Fault, Store};
use exeunt_users::{NewAccount, NewSession, Session, TokenTerms, Users, UsersError};
use ring::rand::SystemRandom;
use serde_json::json;

fn users_on(store: Store) -> Users {
    let clock = Arc::new(|| 1_000);
    Users::new(store, server_name!("example.org").to_owned(), clock, SystemRandom::new())
}

fn users() -> Users {
    users_on(Store::memory())
}

fn alice() -> NewAccount<'static> {
    NewAccount { localpart: Some("alice"), password: Some("swordfish"), ..NewAccount::default() }
}

fn of<'a>(device_id: Option<&'a DeviceId>, name: &'a str) -> NewSession<'a> {
    NewSession { device_id, display_name: Some(name), refreshable: false }
}

fn object(value: serde_json::Value) -> Object {
    value.as_object().cloned().unwrap()
}

#[tokio::test]
async fn register_and_log_in() {
    let users = users();
    let id = users.register(NewAccount { admin: true, ..alice() }).await.unwrap();
    assert_eq!(id, "@alice:example.org");
    let account = users.account(&id).await.unwrap().unwrap();
    assert!(account.admin && account.has_password && !account.deactivated);
    assert!(users.exists(&id).await.unwrap());
    assert!(!users.exists(user_id!("@bob:example.org")).await.unwrap());

    for name in ["alice", "Alice", "@alice:example.org"] {
        let login = users.login_password(name, "swordfish", NewSession::default()).await.unwrap();
        assert!(login.access_token.starts_with("exs_"));
        let session = users.session(&login.access_token).await.unwrap().unwrap();
        let (user_id, device_id) = (id.clone(), login.device_id);
        let (locked, suspended, by_service) = (false, false, None);
        assert_eq!(session, Session { user_id, device_id, locked, suspended, by_service });
    }
    for (name, password) in [("alice", "Swordfish"), ("bob", "swordfish"), ("@alice:else.org", "x")]
    {
        let refused = users.login_password(name, password, NewSession::default()).await;
        assert!(matches!(refused, Err(UsersError::WrongPassword)), "{name}");
    }
    assert_eq!(users.session("exs_nonsense").await.unwrap(), None);
}

#[tokio::test]
async fn names_are_taken_once() {
    let users = users();
    let (a, b) = tokio::join!(users.register(alice()), users.register(alice()));
    let refused = if a.is_ok() { b } else { a };
    assert!(matches!(refused, Err(UsersError::UserInUse(id)) if id == "@alice:example.org"));
    let upper = NewAccount { localpart: Some("ALICE"), ..alice() };
    assert!(matches!(users.register(upper).await, Err(UsersError::UserInUse(_))));
    assert!(matches!(users.check_available("alice").await, Err(UsersError::UserInUse(_))));
    assert!(matches!(users.check_available("a b").await, Err(UsersError::InvalidUsername(_))));
    assert!(users.check_available("bob").await.is_ok());
    let one = users.register(NewAccount::default()).await.unwrap();
    let two = users.register(NewAccount::default()).await.unwrap();
    assert_ne!(one, two);
}

#[tokio::test]
async fn a_second_login_of_a_device_ends_the_first() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    let device = Some(device_id!("PHONE"));
    let first = users.login(&id, of(device, "Phone")).await.unwrap();
    assert!(users.session(&first.access_token).await.unwrap().is_some());
    let second = users.login(&id, of(device, "Other")).await.unwrap();
    assert_eq!(users.session(&first.access_token).await.unwrap(), None);
    assert!(users.session(&second.access_token).await.unwrap().is_some());
    let devices = users.devices(&id).await.unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].display_name.as_deref(), Some("Phone"));
}

#[tokio::test]
async fn logout_ends_cached_sessions() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    let one = users.login(&id, NewSession::default()).await.unwrap();
    let two = users.login(&id, NewSession::default()).await.unwrap();
    let three = users.login(&id, NewSession::default()).await.unwrap();
    for login in [&one, &two, &three] {
        assert!(users.session(&login.access_token).await.unwrap().is_some());
    }
    let session = users.session(&one.access_token).await.unwrap().unwrap();
    users.logout(&session).await.unwrap();
    users.logout(&session).await.unwrap();
    assert_eq!(users.session(&one.access_token).await.unwrap(), None);
    assert!(users.session(&two.access_token).await.unwrap().is_some());
    users.logout_others(&id, Some(&three.device_id)).await.unwrap();
    assert_eq!(users.session(&two.access_token).await.unwrap(), None);
    assert!(users.session(&three.access_token).await.unwrap().is_some());
    users.logout_all(&id).await.unwrap();
    assert_eq!(users.session(&three.access_token).await.unwrap(), None);
    assert!(users.devices(&id).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_store_never_sees_a_token_or_a_password() {
    let store = Store::memory();
    let users = users_on(store.clone());
    let id = users.register(alice()).await.unwrap();
    let login = users.login(&id, NewSession::default()).await.unwrap();
    // Another service on the same store knows the token only by its hash.
    let again = users_on(store.clone());
    assert!(again.session(&login.access_token).await.unwrap().is_some());
    let reader = store.reader();
    let accounts = reader.scan::<exeunt_store::tables::Accounts>(()).collect().unwrap();
    let devices = reader.scan::<exeunt_store::tables::Devices>(()).collect().unwrap();
    let tokens = reader.scan::<exeunt_store::tables::Tokens>(()).collect().unwrap();
    let all = format!("{accounts:?} {devices:?} {tokens:?}");
    assert_eq!(tokens.len(), 1);
    assert!(all.contains("$argon2id$"));
    assert!(!all.contains(&login.access_token) && !all.contains("swordfish"));
}

#[tokio::test]
async fn a_deactivated_account_is_closed_for_good() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    let login = users.login(&id, NewSession::default()).await.unwrap();
    assert!(users.session(&login.access_token).await.unwrap().is_some());
    let data = Object::from_iter([("a".into(), 1.into())]);
    users.put_account_data(&id, None, "m.secret", data).await.unwrap();
    let filter = users.create_filter(&id, Object::new()).await.unwrap();
    users.deactivate(&id, false).await.unwrap();
    assert_eq!(users.account_data(&id, None, "m.secret").await.unwrap(), None);
    assert_eq!(users.filter(&id, filter).await.unwrap(), None);
    assert_eq!(users.session(&login.access_token).await.unwrap(), None);
    let refused = users.login_password("alice", "swordfish", NewSession::default()).await;
    assert!(matches!(refused, Err(UsersError::Deactivated)));
    assert!(matches!(users.login(&id, NewSession::default()).await, Err(UsersError::Deactivated)));
    assert!(matches!(users.register(alice()).await, Err(UsersError::UserInUse(_))));
    assert!(!users.exists(&id).await.unwrap());
    assert_eq!(users.profile(&id).await.unwrap(), None);
    let refused = users.set_displayname(&id, Some("Ghost")).await;
    assert!(matches!(refused, Err(UsersError::Deactivated)));
}

#[tokio::test]
async fn changing_the_password() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    let keep = users.login(&id, NewSession::default()).await.unwrap();
    let other = users.login(&id, NewSession::default()).await.unwrap();
    users.change_password(&id, "new one", Some(Some(&keep.device_id))).await.unwrap();
    assert!(users.session(&keep.access_token).await.unwrap().is_some());
    assert_eq!(users.session(&other.access_token).await.unwrap(), None);
    assert!(users.verify_password("alice", "new one").await.is_ok());
    assert!(users.verify_password("alice", "swordfish").await.is_err());
}

#[tokio::test]
async fn profiles_and_devices() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    users.set_displayname(&id, Some("Alice")).await.unwrap();
    let profile = users.set_avatar_url(&id, Some("mxc://example.org/a")).await.unwrap();
    assert_eq!(profile.displayname.as_deref(), Some("Alice"));
    users.set_displayname(&id, None).await.unwrap();
    let profile = users.profile(&id).await.unwrap().unwrap();
    assert_eq!(profile.displayname, None);
    assert_eq!(profile.avatar_url.as_deref(), Some("mxc://example.org/a"));
    let nobody = user_id!("@nobody:example.org");
    assert_eq!(users.profile(nobody).await.unwrap(), None);
    assert!(matches!(users.set_displayname(nobody, None).await, Err(UsersError::UnknownUser)));
    let long = "x".repeat(exeunt_users::MAX_DISPLAYNAME + 1);
    let refused = users.set_displayname(&id, Some(&long)).await;
    assert!(matches!(refused, Err(UsersError::TooLarge { .. })));

    let login = users.login(&id, NewSession::default()).await.unwrap();
    users.rename_device(&id, &login.device_id, Some("Desk")).await.unwrap();
    let device = users.device(&id, &login.device_id).await.unwrap().unwrap();
    assert_eq!(device.display_name.as_deref(), Some("Desk"));
    let unknown = users.rename_device(&id, device_id!("NOPE"), None).await;
    assert!(matches!(unknown, Err(UsersError::UnknownDevice)));
}

#[tokio::test]
async fn filters_count_up_for_each_user() {
    let users = users();
    let (a, b) = (user_id!("@a:example.org"), user_id!("@b:example.org"));
    let filter = |n: u64| object(json!({ "room": { "timeline": { "limit": n } } }));
    assert_eq!(users.create_filter(a, filter(1)).await.unwrap(), 0);
    assert_eq!(users.create_filter(a, filter(2)).await.unwrap(), 1);
    assert_eq!(users.create_filter(a, filter(1)).await.unwrap(), 0, "the same one again");
    assert_eq!(users.create_filter(b, filter(3)).await.unwrap(), 0);
    assert_eq!(users.filter(a, 1).await.unwrap(), Some(filter(2)));
    assert_eq!(users.filter(b, 1).await.unwrap(), None);
    let large = object(json!({ "x": "x".repeat(exeunt_users::MAX_FILTER) }));
    assert!(matches!(users.create_filter(a, large).await, Err(UsersError::TooLarge { .. })));
}

#[tokio::test]
async fn account_data_by_position() {
    let users = users();
    let (user, room) = (user_id!("@a:example.org"), room_id!("!r:example.org"));
    let content = |n: u64| object(json!({ "n": n }));
    let one = users.put_account_data(user, None, "m.direct", content(1)).await.unwrap();
    let two = users.put_account_data(user, Some(room), "m.tag", content(2)).await.unwrap();
    let three = users.put_account_data(user, None, "m.direct", content(3)).await.unwrap();
    assert!(one < two && two < three);
    assert_eq!(users.account_data(user, None, "m.direct").await.unwrap(), Some(content(3)));
    assert_eq!(users.account_data(user, Some(room), "m.tag").await.unwrap(), Some(content(2)));
    assert_eq!(users.account_data(user, None, "m.tag").await.unwrap(), None);
    let all = users.account_data_since(user, 0, three).await.unwrap();
    let seen: Vec<_> = all.iter().map(|d| (d.room_id.as_deref(), &*d.kind, d.position)).collect();
    let rules = (None, "m.push_rules", 0);
    assert_eq!(seen, [rules, (None, "m.direct", three), (Some(room), "m.tag", two)]);
    assert_eq!(users.account_data_since(user, two, three).await.unwrap().len(), 1);
    assert!(users.account_data_since(user, three, three + 9).await.unwrap().is_empty());
}

/// A `/sync` that waits asks at each wake; a user's rows are read only if there is news.
#[tokio::test]
async fn account_data_is_read_where_there_is_news() {
    let (store, disk) = Store::memory_with_faults();
    let users = users_on(store.clone());
    let (a, b) = (user_id!("@a:example.org"), user_id!("@b:example.org"));
    let content = object(json!({ "n": 1 }));
    let one = users.put_account_data(a, None, "m.x", content.clone()).await.unwrap();
    let two = users.put_account_data(b, None, "m.x", content).await.unwrap();
    disk.fail_reads(true);
    assert!(users.account_data_since(a, one, two).await.unwrap().is_empty());
    assert!(users.account_data_since(b, two, two).await.unwrap().is_empty());
    users.account_data_since(b, one, two).await.unwrap_err();
    disk.fail_reads(false);
    assert_eq!(users.account_data_since(b, one, two).await.unwrap().len(), 1);
    // What was before a start is read.
    assert_eq!(users_on(store).account_data_since(b, one, two).await.unwrap().len(), 1);
}

#[tokio::test]
async fn deleted_account_data_is_told_once() {
    let users = users();
    let (user, room) = (user_id!("@a:example.org"), room_id!("!r:example.org"));
    for room in [None, Some(room)] {
        let put = users.put_account_data(user, room, "x", object(json!({ "a": 1 }))).await.unwrap();
        let deleted = users.put_account_data(user, room, "x", Object::new()).await.unwrap();
        assert_eq!(users.account_data(user, room, "x").await.unwrap(), None);
        let told = users.account_data_since(user, put, deleted).await.unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].content.is_empty());
        let all = users.account_data_since(user, 0, deleted).await.unwrap();
        assert!(all.iter().all(|data| data.kind != "x"));
        assert!(users.account_data_since(user, deleted, deleted + 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn account_data_is_changed_by_one_at_a_time() {
    let users = users();
    let (user, room) = (user_id!("@a:example.org"), room_id!("!r:example.org"));
    let add = |tag: &'static str| {
        users.change_account_data(user, Some(room), "m.tag", move |content| {
            content.insert(tag.to_owned(), true.into());
        })
    };
    let (a, b, c) = tokio::join!(add("a"), add("b"), add("c"));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let content = users.account_data(user, Some(room), "m.tag").await.unwrap();
    assert_eq!(content, Some(object(json!({ "a": true, "b": true, "c": true }))));
}

#[tokio::test]
async fn profiles_have_fields_of_any_name_up_to_a_size() {
    let users = users();
    let id = users.register(alice()).await.unwrap();
    users.set_displayname(&id, Some("Alice")).await.unwrap();
    users.set_profile_field(&id, "m.tz", Some("Europe/Paris".into())).await.unwrap();
    let mood = Some(json!({ "is": ["fine", null] }));
    let profile = users.set_profile_field(&id, "org.example.mood-2", mood).await.unwrap();
    let all = json!({
        "displayname": "Alice",
        "m.tz": "Europe/Paris",
        "org.example.mood-2": { "is": ["fine", null] },
    });
    assert_eq!(exeunt_users::all_fields(&profile), object(all));
    let carried = object(json!({ "displayname": "Alice" }));
    assert_eq!(exeunt_users::member_fields(&profile), carried);
    for bad in ["", "Mood", "1a", ".a", "a b", "é", "m/tz"] {
        let refused = users.set_profile_field(&id, bad, Some(1.into())).await;
        assert!(matches!(refused, Err(UsersError::InvalidKey)), "{bad:?}");
    }
    let long = "x".repeat(exeunt_users::MAX_PROFILE_KEY + 1);
    let refused = users.set_profile_field(&id, &long, Some(1.into())).await;
    assert!(matches!(refused, Err(UsersError::KeyTooLarge { .. })));
    let half = "x".repeat(exeunt_users::MAX_PROFILE / 2);
    users.set_profile_field(&id, "a", Some(half.clone().into())).await.unwrap();
    let refused = users.set_profile_field(&id, "b", Some(half.into())).await;
    assert!(matches!(refused, Err(UsersError::ProfileTooLarge { .. })));
    let profile = users.set_profile_field(&id, "a", None).await.unwrap();
    assert_eq!(profile, users.profile(&id).await.unwrap().unwrap());
    assert_eq!(profile.fields.len(), 2);
}

#[tokio::test]
async fn registration_tokens_are_used_up() {
    let users = users();
    let terms = TokenTerms { uses_allowed: Some(2), expires_at: None };
    let token = users.create_registration_token(Some("let.me~in"), terms).await.unwrap();
    assert_eq!((token.completed, token.usable), (0, true));
    let new = |name: &'static str| NewAccount {
        localpart: Some(name),
        registration_token: Some("let.me~in"),
        ..NewAccount::default()
    };
    // A name that is taken uses nothing up.
    users.register(new("ann")).await.unwrap();
    assert!(matches!(users.register(new("ann")).await, Err(UsersError::UserInUse(_))));
    let (b, c) = tokio::join!(users.register(new("bob")), users.register(new("cat")));
    assert!(b.is_ok() != c.is_ok(), "one use was left");
    assert!(matches!(b.and(c), Err(UsersError::WrongToken)));
    let token = users.registration_token("let.me~in").await.unwrap().unwrap();
    assert_eq!((token.completed, token.usable), (2, false));
    let more = |terms: &mut TokenTerms| terms.uses_allowed = None;
    users.change_registration_token("let.me~in", more).await.unwrap().unwrap();
    assert!(users.registration_token_is_usable("let.me~in").await.unwrap());
    // The clock of this test stands at 1,000.
    let past = |terms: &mut TokenTerms| terms.expires_at = Some(1_000);
    assert!(!users.change_registration_token("let.me~in", past).await.unwrap().unwrap().usable);
    assert!(matches!(users.register(new("dan")).await, Err(UsersError::WrongToken)));
    assert!(users.delete_registration_token("let.me~in").await.unwrap());
    assert!(!users.delete_registration_token("let.me~in").await.unwrap());
    assert!(users.change_registration_token("let.me~in", more).await.unwrap().is_none());
    assert!(matches!(users.register(new("dan")).await, Err(UsersError::WrongToken)));

    let made = users.create_registration_token(None, TokenTerms::default()).await.unwrap();
    assert_eq!(made.token.len(), 16);
    let again = users.create_registration_token(Some(&made.token), terms).await;
    assert!(matches!(again, Err(UsersError::TokenInUse)));
    for bad in ["", "a b", "é", "a/b", &"x".repeat(65)] {
        let refused = users.create_registration_token(Some(bad), terms).await;
        assert!(matches!(refused, Err(UsersError::InvalidToken)), "{bad:?}");
    }
    assert_eq!(users.registration_tokens().await.unwrap(), [made]);
}

/// The first two notices may come at once.
#[tokio::test]
async fn the_account_for_notices_is_made_once() {
    let users = users();
    let make = || users.notice_account("Herald", "Notices");
    let (one, two) = tokio::join!(make(), make());
    assert_eq!(one.unwrap(), "@herald:example.org");
    assert_eq!(two.unwrap(), "@herald:example.org");
    assert_eq!(make().await.unwrap(), "@herald:example.org");
}

#[tokio::test]
async fn a_failed_write_is_an_error_and_changes_nothing() {
    let (store, faults) = Store::memory_with_faults();
    let users = users_on(store);
    faults.fail_next_write(Fault::Lose);
    assert!(matches!(users.register(alice()).await, Err(UsersError::Store(_))));
    let id = user_id!("@alice:example.org");
    assert!(!users.exists(id).await.unwrap());
}
