//! `exeunt registration-token`: who may register, by the API that administration tools speak.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    operate::{Answer, ask, segment},
    reports::time,
};
use crate::{clock::now_ms, config::Config, failure::Failure};

const API: &str = "/_synapse/admin/v1/registration_tokens";

/// A token as the server tells of it.
#[derive(Serialize, Deserialize)]
struct Token {
    token: String,
    uses_allowed: Option<u64>,
    completed: u64,
    /// Milliseconds since the epoch.
    expiry_time: Option<u64>,
}

/// Makes a token; without a name, the server makes one up.
pub fn create(
    config: &Config,
    token: Option<&str>,
    uses: Option<u64>,
    expires_in: Option<Duration>,
    as_json: bool,
) -> Result<String, Failure> {
    let life = expires_in.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let body = json!({
        "token": token,
        "uses_allowed": uses,
        "expiry_time": life.map(|life| now_ms().saturating_add(life)),
    });
    Ok(match ask(config, "POST", &format!("{API}/new"), &body, as_json)? {
        Answer::Raw(text) => text,
        Answer::Parsed(token) => line(&token),
    })
}

/// Every token, used up or not.
pub fn list(config: &Config, as_json: bool) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct List {
        registration_tokens: Vec<Token>,
    }
    let answer = ask(config, "GET", API, &Value::Null, false)?;
    let Answer::Parsed(List { registration_tokens }) = answer else { return Ok(String::new()) };
    let row = |token| if as_json { format!("{}\n", json!(token)) } else { line(token) };
    Ok(match registration_tokens.is_empty() && !as_json {
        true => "there is no registration token\n".into(),
        false => registration_tokens.iter().map(row).collect(),
    })
}

/// Nobody registers with the token any more.
pub fn delete(config: &Config, token: &str) -> Result<String, Failure> {
    let _: Answer<Value> =
        ask(config, "DELETE", &format!("{API}/{}", segment(token)), &Value::Null, false)?;
    Ok(format!("{token} is deleted\n"))
}

fn line(token: &Token) -> String {
    let Token { token, uses_allowed, completed, expiry_time } = token;
    let uses = uses_allowed.map_or_else(String::new, |allowed| format!(" of {allowed}"));
    let end = expiry_time.map_or_else(String::new, |at| format!(", until {}", time(at)));
    format!("{token}: used {completed}{uses} times{end}\n")
}
