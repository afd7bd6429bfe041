//! Refresh tokens, tokens for a short time, and when a device was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exeunt_core::ruma::{OwnedUserId, device_id, server_name, user_id};
use exeunt_store::Store;
use exeunt_store::tables::{Devices, RefreshTokens, Tokens};
use exeunt_users::{
    ACCESS_TOKEN_LIFE_MS, Clock, LOGIN_TOKEN_LIFE_MS, Login, NewAccount, NewSession,
    OPENID_TOKEN_LIFE_MS, Users, UsersError,
};
use ring::rand::SystemRandom;

struct Bench {
    store: Store,
    users: Users,
    now: Arc<AtomicU64>,
    alice: OwnedUserId,
}

impl Bench {
    async fn new() -> Self {
        let now = Arc::new(AtomicU64::new(1_000));
        let store = Store::memory();
        let users = users(&store, &now);
        let alice = NewAccount { localpart: Some("alice"), ..NewAccount::default() };
        let alice = users.register(alice).await.unwrap();
        Self { store, users, now, alice }
    }

    async fn login(&self) -> Login {
        let new = NewSession { refreshable: true, ..NewSession::default() };
        self.users.login(&self.alice, new).await.unwrap()
    }

    async fn refresh(&self, login: &Login) -> Option<Login> {
        self.users.refresh(login.refresh_token.as_deref().unwrap()).await.unwrap()
    }

    async fn is_good(&self, login: &Login) -> bool {
        self.users.session(&login.access_token).await.unwrap().is_some()
    }

    /// Rows of access and refresh tokens.
    fn rows(&self) -> (usize, usize) {
        let reader = self.store.reader();
        let access = reader.scan::<Tokens>(()).keys().unwrap().len();
        (access, reader.scan::<RefreshTokens>(()).keys().unwrap().len())
    }

    fn later(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

fn users(store: &Store, now: &Arc<AtomicU64>) -> Users {
    let time = now.clone();
    let clock: Clock = Arc::new(move || time.load(Ordering::SeqCst));
    Users::new(store.clone(), server_name!("example.org").to_owned(), clock, SystemRandom::new())
}

#[tokio::test]
async fn only_a_token_with_a_successor_runs_out() {
    let bench = Bench::new().await;
    let plain = bench.users.login(&bench.alice, NewSession::default()).await.unwrap();
    assert_eq!((plain.refresh_token.as_deref(), plain.expires_in_ms), (None, None));
    let login = bench.login().await;
    assert_eq!(login.expires_in_ms, Some(ACCESS_TOKEN_LIFE_MS));
    assert!(bench.is_good(&login).await && bench.is_good(&plain).await);
    bench.later(ACCESS_TOKEN_LIFE_MS);
    assert!(bench.is_good(&plain).await);
    for users in [&bench.users, &users(&bench.store, &bench.now)] {
        let expired = users.session(&login.access_token).await;
        assert!(matches!(expired, Err(UsersError::Expired)), "cached or not");
    }
    let next = bench.refresh(&login).await.unwrap();
    assert_eq!((&next.user_id, &next.device_id), (&login.user_id, &login.device_id));
    assert!(bench.is_good(&next).await);
    // An access token refreshes nothing, and a refresh token opens nothing.
    assert_eq!(bench.users.refresh(&next.access_token).await.unwrap(), None);
    assert_eq!(bench.users.session(next.refresh_token.as_deref().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn the_old_tokens_go_when_a_new_one_is_used() {
    let bench = Bench::new().await;
    // The new access token is used.
    let one = bench.login().await;
    let two = bench.refresh(&one).await.unwrap();
    assert!(bench.is_good(&one).await, "the client may have requests under way");
    assert!(bench.is_good(&two).await);
    assert!(!bench.is_good(&one).await);
    assert_eq!(bench.refresh(&one).await, None);
    // The new refresh token is used.
    let three = bench.refresh(&two).await.unwrap();
    let four = bench.refresh(&three).await.unwrap();
    assert_eq!(bench.refresh(&two).await, None);
    assert!(!bench.is_good(&two).await && bench.is_good(&four).await);
    assert_eq!(bench.rows(), (1, 1));
}

#[tokio::test]
async fn an_answer_that_got_lost_is_asked_for_again() {
    let bench = Bench::new().await;
    let login = bench.login().await;
    let lost = bench.refresh(&login).await.unwrap();
    // A restart in between changes nothing.
    let after = users(&bench.store, &bench.now);
    let next = after.refresh(login.refresh_token.as_deref().unwrap()).await.unwrap().unwrap();
    assert!(after.session(&next.access_token).await.unwrap().is_some());
    for gone in [&lost, &login] {
        assert_eq!(after.session(&gone.access_token).await.unwrap(), None);
        assert_eq!(after.refresh(gone.refresh_token.as_deref().unwrap()).await.unwrap(), None);
    }
    assert_eq!(bench.rows(), (1, 1));
}

#[tokio::test]
async fn a_device_takes_all_its_tokens_along() {
    let bench = Bench::new().await;
    let one = bench.login().await;
    let two = bench.refresh(&one).await.unwrap();
    assert_eq!(bench.rows(), (2, 2));
    bench.users.delete_devices(&bench.alice, std::slice::from_ref(&two.device_id)).await.unwrap();
    assert_eq!(bench.rows(), (0, 0));
    assert_eq!(bench.refresh(&one).await, None);
    assert_eq!(bench.refresh(&two).await, None);
    // A login of a known device ends what it had.
    let one = bench.login().await;
    let same = NewSession { device_id: Some(&one.device_id), ..NewSession::default() };
    bench.users.login(&bench.alice, same).await.unwrap();
    assert_eq!(bench.rows(), (1, 0));
    assert_eq!(bench.refresh(&one).await, None);
}

#[tokio::test]
async fn the_store_knows_refresh_tokens_by_hash() {
    let bench = Bench::new().await;
    let login = bench.login().await;
    let reader = bench.store.reader();
    let tokens = reader.scan::<RefreshTokens>(()).collect().unwrap();
    let devices = reader.scan::<Devices>(()).collect().unwrap();
    assert_eq!(tokens.len(), 1);
    let all = format!("{tokens:?} {devices:?}");
    assert!(!all.contains(login.refresh_token.as_deref().unwrap()));
}

#[tokio::test]
async fn a_login_token_serves_once_and_not_for_long() {
    let bench = Bench::new().await;
    let by = async |token: &str| bench.users.login_by_token(token, NewSession::default()).await;
    let token = bench.users.login_token(&bench.alice).unwrap();
    assert_eq!(by(&token).await.unwrap().user_id, bench.alice);
    assert!(matches!(by(&token).await, Err(UsersError::WrongToken)));
    let token = bench.users.login_token(&bench.alice).unwrap();
    bench.later(LOGIN_TOKEN_LIFE_MS);
    assert!(matches!(by(&token).await, Err(UsersError::WrongToken)));
    let token = bench.users.login_token(&bench.alice).unwrap();
    assert_eq!(bench.users.openid_user(&token), None, "it is for one purpose");
    bench.users.change_password(&bench.alice, "other", None).await.unwrap();
    assert!(matches!(by(&token).await, Err(UsersError::WrongToken)));
}

#[tokio::test]
async fn an_openid_token_says_who_one_is() {
    let bench = Bench::new().await;
    let token = bench.users.openid_token(&bench.alice).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.users.openid_user(&token).as_ref(), Some(&bench.alice));
    }
    assert_eq!(bench.users.openid_user("exo_nonsense"), None);
    assert_eq!(bench.users.session(&token).await.unwrap(), None);
    bench.later(OPENID_TOKEN_LIFE_MS);
    assert_eq!(bench.users.openid_user(&token), None);
    let token = bench.users.openid_token(&bench.alice).unwrap();
    bench.users.deactivate(&bench.alice, false).await.unwrap();
    assert_eq!(bench.users.openid_user(&token), None);
}

#[tokio::test]
async fn devices_say_when_they_were_seen() {
    let bench = Bench::new().await;
    let device = device_id!("D");
    let new = NewSession { device_id: Some(device), ..NewSession::default() };
    let login = bench.users.login(&bench.alice, new).await.unwrap();
    let session = bench.users.session(&login.access_token).await.unwrap().unwrap();
    let of = async |users: &Users| users.device(&bench.alice, device).await.unwrap().unwrap().seen;
    assert_eq!(of(&bench.users).await, None);
    let ip = Some("203.0.113.7".parse().unwrap());
    bench.users.seen(&session, ip, Some("Client/1")).await.unwrap();
    bench.later(5_000);
    bench.users.seen(&session, None, Some(&"é".repeat(300))).await.unwrap();
    let lately = of(&bench.users).await.unwrap();
    assert_eq!((lately.at, lately.ip), (6_000, None));
    assert_eq!(lately.user_agent.unwrap().chars().count(), 256);
    // The store has the first sighting; the next is written when that is old.
    let after = users(&bench.store, &bench.now);
    let stored = of(&after).await.unwrap();
    assert_eq!((stored.at, stored.ip.as_deref()), (1_000, Some("203.0.113.7")));
    assert_eq!(stored.user_agent.as_deref(), Some("Client/1"));
    let written = bench.store.reader().position().unwrap();
    after.seen(&session, ip, None).await.unwrap();
    assert_eq!(bench.store.reader().position().unwrap(), written, "not again so soon");
    bench.later(60 * 60_000);
    after.seen(&session, ip, None).await.unwrap();
    assert_eq!(of(&users(&bench.store, &bench.now)).await.unwrap().at, 6_000 + 60 * 60_000);
    // A device that is gone stays gone.
    after.delete_devices(&bench.alice, &[device.to_owned()]).await.unwrap();
    bench.later(2 * 60 * 60_000);
    after.seen(&session, ip, None).await.unwrap();
    assert_eq!(after.device(user_id!("@alice:example.org"), device).await.unwrap(), None);
}
