//! TURN servers for calls: credentials that end, made from a secret that the TURN server shares.
//!
//! Specification: client-server API, "Voice over IP"; draft-uberti-behave-turn-rest-00.

use std::time::Duration;

use exeunt_core::encoding::to_base64;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ring::hmac;
use ruma::UserId;
use serde_json::{Value, json};

use crate::ClientApi;

/// From the configuration.
#[derive(Clone, Default)]
pub struct Turn {
    /// `turn:` and `turns:` URIs; none where there is no TURN server.
    pub uris: Vec<String>,
    pub shared_secret: String,
    /// How long credentials are good for.
    pub life: Duration,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { uris, life, .. } = self;
        f.debug_struct("Turn").field("uris", uris).field("life", life).finish_non_exhaustive()
    }
}

impl Turn {
    /// Credentials for a user, from now (ms) on.
    fn credentials(&self, user: &UserId, now: u64) -> Value {
        let username = format!("{}:{user}", now / 1000 + self.life.as_secs());
        let key =
            hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.shared_secret.as_bytes());
        let tag = hmac::sign(&key, username.as_bytes());
        json!({
            "username": username,
            // Of 20 bytes: with its padding, as TURN servers have it.
            "password": format!("{}=", to_base64(tag.as_ref())),
            "uris": self.uris,
            "ttl": self.life.as_secs(),
        })
    }
}

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/voip/turnServer", turn_server)
}

/// `GET /_matrix/client/v3/voip/turnServer`: an empty answer where there is none, as clients expect.
async fn turn_server(api: ClientApi, session: Session, _: RawCall) -> Result<Reply, MatrixError> {
    let turn = &api.options().turn;
    if turn.uris.is_empty() {
        return Ok(Reply::json(json!({})));
    }
    Ok(Reply::json(turn.credentials(&session.user_id, api.now())))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    /// By `printf %s 1700086400:@ann:example.org | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn credentials_are_those_that_turn_servers_expect() {
        let turn = Turn {
            uris: vec!["turn:turn.example.org".into()],
            shared_secret: "north".into(),
            life: Duration::from_secs(86_400),
        };
        let found = turn.credentials(user_id!("@ann:example.org"), 1_700_000_000_000);
        let expected = json!({
            "username": "1700086400:@ann:example.org",
            "password": "lhSz16twgtg+ESmRHkOPY2VmAoE=",
            "uris": ["turn:turn.example.org"],
            "ttl": 86_400,
        });
        assert_eq!(found, expected);
    }
}
