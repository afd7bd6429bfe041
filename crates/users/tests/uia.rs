//! User-interactive authentication.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exeunt_core::Object;
use exeunt_core::ruma::server_name;
use exeunt_store::Store;
use exeunt_users::{
    Challenge, Clock, NewAccount, Purpose, RegistrationPolicy, TokenTerms, UIA_SESSION_LIFE_MS,
    Uia, UiaFailure, UiaOutcome, Users, UsersError,
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

const DONE: UiaOutcome = UiaOutcome::Done { registration_token: None };

struct Bench {
    users: Users,
    uia: Uia,
    now: Arc<AtomicU64>,
}

fn bench(open: bool, token: Option<&str>) -> Bench {
    let now = Arc::new(AtomicU64::new(1_000));
    let time = Arc::clone(&now);
    let clock: Clock = Arc::new(move || time.load(Ordering::SeqCst));
    let rng = SystemRandom::new();
    let policy = RegistrationPolicy { open, token: token.map(str::to_owned), shared_secret: None };
    let server = server_name!("example.org").to_owned();
    let users = Users::new(Store::memory(), server, clock.clone(), rng.clone());
    Bench { users, uia: Uia::new(policy, clock, rng), now }
}

impl Bench {
    async fn register(&self, auth: Option<Value>) -> UiaOutcome {
        self.advance(&Purpose::Register, auth).await
    }

    async fn advance(&self, purpose: &Purpose, auth: Option<Value>) -> UiaOutcome {
        let auth: Option<Object> = auth.map(|auth| auth.as_object().cloned().unwrap());
        self.uia.advance(&self.users, purpose, auth.as_ref()).await.unwrap()
    }
}

fn more(outcome: UiaOutcome) -> Challenge {
    match outcome {
        UiaOutcome::More(challenge) => challenge,
        UiaOutcome::Done { .. } => panic!("done too early"),
    }
}

#[tokio::test]
async fn open_registration_by_dummy() {
    let bench = bench(true, None);
    let challenge = more(bench.register(None).await);
    assert_eq!(challenge.flows, [["m.login.dummy"]]);
    let body = challenge.body();
    assert_eq!(body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert_eq!(body.get("errcode"), None);
    let auth = json!({ "type": "m.login.dummy", "session": challenge.session });
    assert_eq!(bench.register(Some(auth.clone())).await, DONE);
    let again = more(bench.register(Some(auth)).await);
    assert_eq!(again.failure, Some(UiaFailure::UnknownSession), "a session serves once");
    let at_once = Some(json!({ "type": "m.login.dummy" }));
    assert_eq!(bench.register(at_once).await, DONE);
}

#[tokio::test]
async fn closed_registration() {
    let bench = bench(false, None);
    let refused = bench.uia.advance(&bench.users, &Purpose::Register, None).await;
    assert!(matches!(refused, Err(UsersError::RegistrationClosed)));
}

#[tokio::test]
async fn a_token_is_asked_for_even_when_open() {
    for open in [false, true] {
        let bench = bench(open, Some("let me in"));
        let session = more(bench.register(None).await).session;
        let auth = |kind: &str, token: &str| {
            Some(json!({ "type": kind, "token": token, "session": session }))
        };
        let dummy = more(bench.register(auth("m.login.dummy", "")).await);
        assert_eq!(dummy.failure, Some(UiaFailure::UnknownStage));
        let kind = "m.login.registration_token";
        let wrong = more(bench.register(auth(kind, "let me")).await);
        assert_eq!(wrong.failure, Some(UiaFailure::WrongToken));
        assert_eq!(wrong.body()["errcode"], "M_FORBIDDEN");
        assert_eq!(wrong.session, session);
        assert_eq!(bench.register(auth(kind, "let me in")).await, DONE);
    }
}

#[tokio::test]
async fn sessions_expire_and_are_bounded() {
    let bench = bench(true, None);
    let auth = |session: &str| Some(json!({ "type": "m.login.dummy", "session": session }));
    let old = more(bench.register(None).await).session;
    bench.now.fetch_add(UIA_SESSION_LIFE_MS, Ordering::SeqCst);
    let late = more(bench.register(auth(&old)).await);
    assert_eq!(late.failure, Some(UiaFailure::UnknownSession));

    let first = more(bench.register(None).await).session;
    for _ in 0..exeunt_users::MAX_UIA_SESSIONS {
        bench.now.fetch_add(1, Ordering::SeqCst);
        more(bench.register(None).await);
    }
    let pushed_out = more(bench.register(auth(&first)).await);
    assert_eq!(pushed_out.failure, Some(UiaFailure::UnknownSession));
}

#[tokio::test]
async fn a_password_proves_its_owner_only() {
    let bench = bench(true, None);
    let new =
        |name| NewAccount { localpart: Some(name), password: Some(name), ..NewAccount::default() };
    let alice = bench.users.register(new("alice")).await.unwrap();
    let bob = bench.users.register(new("bob")).await.unwrap();
    let purpose = Purpose::Account(alice.clone());
    let session = more(bench.advance(&purpose, None).await).session;
    let auth = |user: &str, password: &str| {
        Some(json!({
            "type": "m.login.password",
            "session": session,
            "identifier": { "type": "m.id.user", "user": user },
            "password": password,
        }))
    };
    let object = auth("bob", "bob").and_then(|auth| auth.as_object().cloned());
    let another = bench.uia.advance(&bench.users, &purpose, object.as_ref()).await;
    assert!(matches!(another, Err(UsersError::AnotherUser)));
    for (user, password) in [("alice", "bob"), ("nobody", "x")] {
        let refused = more(bench.advance(&purpose, auth(user, password)).await);
        assert_eq!(refused.failure, Some(UiaFailure::WrongPassword), "{user}");
    }
    let stolen = more(bench.advance(&Purpose::Account(bob), auth("bob", "bob")).await);
    assert_eq!(stolen.failure, Some(UiaFailure::UnknownSession), "a session is for one purpose");
    assert_eq!(bench.advance(&purpose, auth("alice", "alice")).await, DONE);
}

#[tokio::test]
async fn who_has_a_token_of_an_administrator_registers_where_it_is_closed() {
    let bench = bench(false, None);
    let terms = TokenTerms { uses_allowed: Some(1), expires_at: None };
    bench.users.create_registration_token(Some("one"), terms).await.unwrap();
    let challenge = more(bench.register(None).await);
    assert_eq!(challenge.flows, [["m.login.registration_token"]]);
    let auth = |token: &str| Some(json!({ "type": "m.login.registration_token", "token": token }));
    let wrong = more(bench.register(auth("two")).await);
    assert_eq!(wrong.failure, Some(UiaFailure::WrongToken));
    let registration_token = Some("one".to_owned());
    assert_eq!(bench.register(auth("one")).await, UiaOutcome::Done { registration_token });
    bench.users.delete_registration_token("one").await.unwrap();
    let refused = bench.uia.advance(&bench.users, &Purpose::Register, None).await;
    assert!(matches!(refused, Err(UsersError::RegistrationClosed)));
}
