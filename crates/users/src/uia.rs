//! User-interactive authentication. Specification: client-server API, "User-Interactive
//! Authentication API".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedUserId, UserId};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::{Clock, RegistrationPolicy, Users, UsersError, random};

/// Sessions under way. A new one beyond that takes the place of the oldest.
pub const MAX_UIA_SESSIONS: usize = 1024;
/// How long a session may take.
pub const UIA_SESSION_LIFE_MS: u64 = 15 * 60_000;

/// What is to be authorised. A session serves the purpose that it was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    Register,
    /// Something that a logged-in user may do with the password.
    Account(OwnedUserId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Dummy,
    RegistrationToken,
    Password,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Dummy => "m.login.dummy",
            Stage::RegistrationToken => "m.login.registration_token",
            Stage::Password => "m.login.password",
        }
    }
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum UiaOutcome {
    /// Every stage is done and the session is over: go on.
    Done {
        /// The token of an administrator that was shown, to be used up with what follows.
        registration_token: Option<String>,
    },
    /// To be answered with 401.
    More(Challenge),
}

/// What the client has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub session: String,
    pub flows: Vec<Vec<&'static str>>,
    pub completed: Vec<&'static str>,
    /// Why the stage that was just tried is not done.
    pub failure: Option<UiaFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UiaFailure {
    /// `M_FORBIDDEN`
    WrongPassword,
    /// `M_FORBIDDEN`
    WrongToken,
    /// `M_UNRECOGNIZED`
    UnknownStage,
    /// `M_UNKNOWN`: expired, or never ours.
    UnknownSession,
}

impl UiaFailure {
    fn code_and_text(self) -> (&'static str, &'static str) {
        match self {
            UiaFailure::WrongPassword => ("M_FORBIDDEN", "Wrong user name or password"),
            UiaFailure::WrongToken => ("M_FORBIDDEN", "Not a valid registration token"),
            UiaFailure::UnknownStage => ("M_UNRECOGNIZED", "No such stage in the flows"),
            UiaFailure::UnknownSession => ("M_UNKNOWN", "The session is unknown or has expired"),
        }
    }
}

impl Challenge {
    /// Body of the 401.
    pub fn body(&self) -> Value {
        let flows: Vec<_> = self.flows.iter().map(|stages| json!({ "stages": stages })).collect();
        let mut body = json!({
            "session": self.session,
            "flows": flows,
            "params": {},
            "completed": self.completed,
        });
        if let Some(failure) = self.failure {
            let (code, text) = failure.code_and_text();
            body["errcode"] = code.into();
            body["error"] = text.into();
        }
        body
    }
}

struct Progress {
    purpose: Purpose,
    started: u64,
    completed: BTreeSet<Stage>,
    registration_token: Option<String>,
}

/// The sessions under way.
pub struct Uia {
    policy: RegistrationPolicy,
    clock: Clock,
    rng: SystemRandom,
    sessions: Mutex<BTreeMap<String, Progress>>,
}

impl Uia {
    pub fn new(policy: RegistrationPolicy, clock: Clock, rng: SystemRandom) -> Self {
        Self { policy, clock, rng, sessions: Mutex::default() }
    }

    pub fn policy(&self) -> &RegistrationPolicy {
        &self.policy
    }

    /// Takes the `auth` object of a request one step further.
    ///
    /// An `auth` without a session starts one and may complete its stage at once.
    pub async fn advance(
        &self,
        users: &Users,
        purpose: &Purpose,
        auth: Option<&Object>,
    ) -> Result<UiaOutcome, UsersError> {
        let flow = self.flow(users, purpose).await?;
        let Some(auth) = auth else {
            return Ok(UiaOutcome::More(self.start(purpose, flow, None)?));
        };
        let session = match auth.get("session").and_then(Value::as_str) {
            Some(session) if self.is_open(session, purpose) => session.to_owned(),
            Some(_) => {
                let failure = Some(UiaFailure::UnknownSession);
                return Ok(UiaOutcome::More(self.start(purpose, flow, failure)?));
            }
            None => self.start(purpose, flow, None)?.session,
        };
        let failure = match auth.get("type").and_then(Value::as_str) {
            None => None,
            Some(kind) => match flow.iter().find(|stage| stage.name() == kind) {
                None => Some(UiaFailure::UnknownStage),
                Some(stage) => {
                    let failure = self.try_stage(users, purpose, *stage, auth).await?;
                    if failure.is_none() {
                        self.complete(&session, *stage, auth);
                    }
                    failure
                }
            },
        };
        Ok(self.outcome(session, flow, failure))
    }

    /// Whether anybody may register, be it with a token.
    pub async fn check_registration(&self, users: &Users) -> Result<(), UsersError> {
        self.flow(users, &Purpose::Register).await.map(drop)
    }

    /// Whether the token lets its holder register.
    pub async fn token_is_valid(&self, users: &Users, token: &str) -> Result<bool, UsersError> {
        Ok(self.policy.token_is_valid(token) || users.registration_token_is_usable(token).await?)
    }

    /// The stages to complete, in any order. Who has a token of an administrator registers where
    /// registration is closed.
    async fn flow(&self, users: &Users, purpose: &Purpose) -> Result<&'static [Stage], UsersError> {
        match purpose {
            Purpose::Account(_) => Ok(&[Stage::Password]),
            Purpose::Register if self.policy.token.is_some() => Ok(&[Stage::RegistrationToken]),
            Purpose::Register if self.policy.open => Ok(&[Stage::Dummy]),
            Purpose::Register => {
                let tokens = users.registration_tokens().await?;
                match tokens.iter().any(|token| token.usable) {
                    true => Ok(&[Stage::RegistrationToken]),
                    false => Err(UsersError::RegistrationClosed),
                }
            }
        }
    }

    async fn try_stage(
        &self,
        users: &Users,
        purpose: &Purpose,
        stage: Stage,
        auth: &Object,
    ) -> Result<Option<UiaFailure>, UsersError> {
        let text = |key: &str| auth.get(key).and_then(Value::as_str).unwrap_or_default();
        match (stage, purpose) {
            (Stage::Dummy, _) => Ok(None),
            (Stage::RegistrationToken, _) => match self.token_is_valid(users, text("token")).await?
            {
                true => Ok(None),
                false => Ok(Some(UiaFailure::WrongToken)),
            },
            (Stage::Password, Purpose::Account(owner)) => {
                let wrong = Ok(Some(UiaFailure::WrongPassword));
                match users.verify_password(named_user(auth, owner), text("password")).await {
                    Ok(user) if user == *owner => Ok(None),
                    Ok(_) => Err(UsersError::AnotherUser),
                    Err(UsersError::WrongPassword) => wrong,
                    Err(error) => Err(error),
                }
            }
            (Stage::Password, Purpose::Register) => Ok(Some(UiaFailure::UnknownStage)),
        }
    }

    fn start(
        &self,
        purpose: &Purpose,
        flow: &[Stage],
        failure: Option<UiaFailure>,
    ) -> Result<Challenge, UsersError> {
        let session = random::secret(&self.rng)?;
        let now = (self.clock)();
        let mut sessions = self.sessions();
        sessions.retain(|_, progress| is_fresh(progress, now));
        if sessions.len() >= MAX_UIA_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, p)| p.started).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                sessions.remove(&oldest);
            }
        }
        let progress = Progress {
            purpose: purpose.clone(),
            started: now,
            completed: BTreeSet::new(),
            registration_token: None,
        };
        sessions.insert(session.clone(), progress);
        Ok(Challenge { session, flows: vec![names(flow)], completed: Vec::new(), failure })
    }

    fn is_open(&self, session: &str, purpose: &Purpose) -> bool {
        let now = (self.clock)();
        let sessions = self.sessions();
        sessions.get(session).is_some_and(|p| is_fresh(p, now) && p.purpose == *purpose)
    }

    fn complete(&self, session: &str, stage: Stage, auth: &Object) {
        if let Some(progress) = self.sessions().get_mut(session) {
            progress.completed.insert(stage);
            if stage == Stage::RegistrationToken {
                let token = auth.get("token").and_then(Value::as_str);
                let counted = token.filter(|token| !self.policy.token_is_valid(token));
                progress.registration_token = counted.map(str::to_owned);
            }
        }
    }

    fn outcome(&self, session: String, flow: &[Stage], failure: Option<UiaFailure>) -> UiaOutcome {
        let mut sessions = self.sessions();
        let completed =
            sessions.get(&session).map(|progress| progress.completed.clone()).unwrap_or_default();
        if flow.iter().all(|stage| completed.contains(stage)) {
            let done = sessions.remove(&session);
            let registration_token = done.and_then(|progress| progress.registration_token);
            return UiaOutcome::Done { registration_token };
        }
        let completed = completed.into_iter().map(Stage::name).collect();
        UiaOutcome::More(Challenge { session, flows: vec![names(flow)], completed, failure })
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Progress>> {
        self.sessions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The user that the password stage names: `identifier.user`, the older `user`, or the owner.
fn named_user<'a>(auth: &'a Object, owner: &'a UserId) -> &'a str {
    auth.get("identifier")
        .and_then(|identifier| identifier.get("user"))
        .or_else(|| auth.get("user"))
        .and_then(Value::as_str)
        .unwrap_or(owner.as_str())
}

fn is_fresh(progress: &Progress, now: u64) -> bool {
    now.saturating_sub(progress.started) < UIA_SESSION_LIFE_MS
}

fn names(flow: &[Stage]) -> Vec<&'static str> {
    flow.iter().map(|stage| stage.name()).collect()
}
