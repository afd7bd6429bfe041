//! Commands that the running server carries out: closing accounts, deleting rooms, turning down
//! invites. They reach it over the socket in its data folder, so that whoever may read that folder
//! needs no token (decision 0021).

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{
    farewell::FarewellReport,
    reports::Invite,
    standing::CheckedInvite,
    triage::{TriageFilter, TriageMode, TriageReport},
};
use exeunt_store::records::{AttemptRecord, DepartureEnd, DepartureJobRecord};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    print,
    reports::{lines, time},
};
use crate::{config::Config, failure::Failure, listen::operator_socket};

/// How long the server may take for one request.
const PATIENCE: Duration = Duration::from_secs(600);
/// What is read of an answer.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Where paths begin that do not begin with a slash.
const API: &str = "/_exeunt/admin/v1/";

/// Closes an account and starts its departure from everywhere.
pub fn deactivate(
    config: &Config,
    user: &OwnedUserId,
    erase: bool,
    as_json: bool,
) -> Result<String, Failure> {
    let path = format!("users/{}/deactivate", segment(user.as_str()));
    let body = json!({ "erase": erase });
    let job: DepartureJobRecord = match ask(config, "POST", &path, &body, as_json)? {
        Answer::Raw(text) => return Ok(text),
        Answer::Parsed(job) => job,
    };
    Ok(format!(
        "{user} is closed, {} of {} rooms, invites and knocks are left; \
         `exeunt user departure {user}` says how far it is\n",
        job.done, job.total
    ))
}

/// How far the departure of a closed account is.
pub fn departure(config: &Config, user: &OwnedUserId, as_json: bool) -> Result<String, Failure> {
    let path = format!("users/{}/departure", segment(user.as_str()));
    let job: DepartureJobRecord = match ask(config, "GET", &path, &Value::Null, as_json)? {
        Answer::Raw(text) => return Ok(text),
        Answer::Parsed(job) => job,
    };
    let mut text = format!("{user}: {} of {} rooms, invites and knocks", job.done, job.total);
    text += &job.finished_at.map(|at| format!(", done at {}", time(at))).unwrap_or_default();
    text += "\n";
    for result in &job.results {
        let ended = match &result.ended {
            DepartureEnd::Left => continue,
            DepartureEnd::Waiting => "has yet to be left".to_owned(),
            DepartureEnd::Queued => "is left; no server of the room has heard of it yet".to_owned(),
            DepartureEnd::Failed(why) => format!("could not be left: {why}"),
        };
        line(&mut text, format_args!("  {} ({}) {ended}", result.room_id, result.membership));
    }
    Ok(text)
}

/// Takes one user out of one room, or turns their invite or knock down.
pub fn leave(
    config: &Config,
    room: &OwnedRoomId,
    user: &OwnedUserId,
    reason: Option<String>,
) -> Result<String, Failure> {
    let path = format!("rooms/{}/leave/{}", segment(room.as_str()), segment(user.as_str()));
    let _: Answer<Value> = ask(config, "POST", &path, &json!({ "reason": reason }), false)?;
    Ok(format!("{user} is out of {room}; `exeunt departures` says whether the room knows\n"))
}

/// Deletes a room: remote invites and knocks are ended, local users leave, the graph goes.
pub fn delete_room(
    config: &Config,
    room: &OwnedRoomId,
    reason: Option<String>,
    deadline: Duration,
    as_json: bool,
) -> Result<String, Failure> {
    let path = format!("rooms/{}/delete", segment(room.as_str()));
    let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let body = json!({ "reason": reason, "deadline_ms": deadline });
    let report: FarewellReport = match ask(config, "POST", &path, &body, as_json)? {
        Answer::Raw(text) => return Ok(text),
        Answer::Parsed(report) => report,
    };
    let mut text = format!("{room} is deleted, with {} events\n", report.events);
    for user in &report.left {
        line(&mut text, format_args!("  {user} was taken out"));
    }
    for user in &report.ended {
        line(&mut text, format_args!("  the invite or knock of {user} was ended"));
    }
    for failure in &report.failed {
        line(&mut text, format_args!("  {} could not be told: {}", failure.user, failure.error));
    }
    for waits in &report.undelivered {
        line(&mut text, format_args!("  {} has yet to take {}", waits.server, waits.event));
    }
    for user in &report.departing {
        line(&mut text, format_args!("  the departure of {user} waits for a server of the room"));
    }
    Ok(text)
}

/// Asks about all pending invites and knocks, and prints what is known page by page.
pub fn check_invites(config: &Config, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Page {
        rows: Vec<CheckedInvite>,
    }
    let mut path = "invites/check".to_owned();
    let mut count = 0;
    loop {
        let answer = ask(config, "POST", &path, &json!({}), false)?;
        let Answer::Parsed(Page { rows }) = answer else { return Ok(()) };
        let Some(Invite { user_id, room_id, .. }) = rows.last().map(|row| &row.invite) else {
            break;
        };
        let (user, room) = (segment(user_id.as_str()), segment(room_id.as_str()));
        path = format!("invites/check?after_user={user}&after_room={room}");
        count += rows.len();
        print(out, &lines(&rows, as_json, ""))?;
    }
    if count == 0 && !as_json {
        print(out, "no invite is waiting\n")?;
    }
    Ok(())
}

/// Finds pending invites and, unless it is a dry run, turns them down.
pub fn triage(
    config: &Config,
    filter: &TriageFilter,
    mode: TriageMode,
    as_json: bool,
) -> Result<String, Failure> {
    let mut body = json!(filter);
    body["mode"] = json!(mode);
    let report: TriageReport = match ask(config, "POST", "invites/triage", &body, as_json)? {
        Answer::Raw(text) => return Ok(text),
        Answer::Parsed(report) => report,
    };
    let mut text = format!("{} invites match; ", report.matched);
    match mode {
        TriageMode::DryRun => text += "nothing was done: --reject or --silent turns them down\n",
        _ => line(&mut text, format_args!("{} are turned down", report.rejected)),
    }
    if report.kept > 0 {
        let why = "are of rooms that users of this server are in, where no rejection is silent";
        line(&mut text, format_args!("  {} stay: they {why}", report.kept));
    }
    for invite in &report.invites {
        let (user, room, by) = (&invite.user, &invite.room, &invite.inviter);
        line(&mut text, format_args!("  {user}: {room} by {by} at {}", time(invite.received_at)));
    }
    if report.matched > report.invites.len() {
        line(&mut text, format_args!("  and {} more", report.matched - report.invites.len()));
    }
    for failure in &report.failed {
        let (user, room, error) = (&failure.user, &failure.room, &failure.error);
        line(&mut text, format_args!("  {user}: {room} could not be turned down: {error}"));
    }
    Ok(text)
}

#[derive(Deserialize)]
struct Abandoned {
    attempts: u32,
    last: Vec<AttemptRecord>,
}

/// Gives up a departure that no server takes.
pub fn abandon(config: &Config, user: &OwnedUserId, room: &OwnedRoomId) -> Result<String, Failure> {
    let path = format!("departures/{}/{}", segment(user.as_str()), segment(room.as_str()));
    let Answer::Parsed(Abandoned { attempts, last }) =
        ask(config, "DELETE", &path, &Value::Null, false)?
    else {
        return Ok(String::new());
    };
    let mut text =
        format!("{user} is out of {room}, and the room is not told: {attempts} attempts failed\n");
    for attempt in last {
        line(&mut text, format_args!("  {}: {}", attempt.server, attempt.outcome));
    }
    Ok(text)
}

pub(super) enum Answer<T> {
    /// One JSON object, as it came.
    Raw(String),
    Parsed(T),
}

/// One request to the running server.
pub(super) fn ask<T: DeserializeOwned>(
    config: &Config,
    method: &str,
    path: &str,
    body: &Value,
    as_json: bool,
) -> Result<Answer<T>, Failure> {
    let socket = operator_socket(&config.store.path);
    let unreachable = |error: io::Error| Failure::NotRunning { path: socket.clone(), error };
    let mut stream = UnixStream::connect(&socket).map_err(unreachable)?;
    let (status, answer) = exchange(&mut stream, method, path, body).map_err(unreachable)?;
    if status != 200 {
        let said: Value = serde_json::from_str(&answer).unwrap_or_default();
        let said = said["error"].as_str().map_or_else(|| format!("status {status}"), str::to_owned);
        return Err(Failure::Input(said));
    }
    if as_json {
        return Ok(Answer::Raw(format!("{answer}\n")));
    }
    let parsed = serde_json::from_str(&answer);
    parsed.map(Answer::Parsed).map_err(|error| unreachable(io::Error::other(error)))
}

/// One exchange of HTTP, after which the server hangs up: status and body.
fn exchange(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: &Value,
) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let root = if path.starts_with('/') { "" } else { API };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {root}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let garbled = || io::Error::other("the answer is no HTTP");
    let answer = String::from_utf8(answer).map_err(|_| garbled())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(garbled)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(garbled)?, body.to_owned()))
}

/// A segment of a path, percent-encoded but for the unreserved characters (RFC 3986).
pub(super) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out += &format!("%{other:02X}"),
        }
        out
    })
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes everything");
}
