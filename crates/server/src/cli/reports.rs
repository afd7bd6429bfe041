//! `exeunt timeline`, `departures`, `invites`, `reports`, `signatures`: as text, or as one JSON object per line.

use std::fmt;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::reports::{
    self, ContentReport, Departure, Invite, Page, Signature, SignatureQuery, TimelineEntry,
    TimelineQuery,
};
use exeunt_room::standing::{CheckedInvite, Standing};
use exeunt_store::{Reader, Store, StoreError, records::Reported};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::existing;
use crate::{clock::now_ms, config::Config, failure::Failure};

/// Every membership change of a room, or of one user in it.
pub fn timeline(
    config: &Config,
    room_id: OwnedRoomId,
    user_id: Option<OwnedUserId>,
    as_json: bool,
) -> Result<String, Failure> {
    let query = |from| TimelineQuery {
        room_id: room_id.clone(),
        user_id: user_id.clone(),
        from,
        limit: reports::MAX_ROWS,
    };
    let rows = all(config, |reader, from| reports::timeline(reader, &query(from)))?;
    Ok(lines(&rows, as_json, "no membership change is known"))
}

/// Everything in the departure outbox.
pub fn departures(config: &Config, as_json: bool) -> Result<String, Failure> {
    let store = Store::open_read_only(&existing(config)?)?;
    let rows = reports::departures(&store.reader())?;
    Ok(lines(&rows, as_json, "no departure is waiting"))
}

/// Invites and knocks of our users that wait for an answer.
pub fn invites(config: &Config, as_json: bool) -> Result<String, Failure> {
    let store = Store::open_read_only(&existing(config)?)?;
    let mut rows: Vec<Invite> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.user_id.clone(), row.room_id.clone()));
        let page = reports::invites(&store.reader(), after, now_ms())?;
        if page.is_empty() {
            return Ok(lines(&rows, as_json, "no invite is waiting"));
        }
        rows.extend(page);
    }
}

/// What users have reported.
pub fn content(config: &Config, as_json: bool) -> Result<String, Failure> {
    let rows =
        all(config, |reader, from| reports::content_reports(reader, from, reports::MAX_ROWS))?;
    Ok(lines(&rows, as_json, "nothing has been reported"))
}

/// The journal of signatures.
pub fn signatures(
    config: &Config,
    query: SignatureQuery,
    as_json: bool,
) -> Result<String, Failure> {
    let query = |from| SignatureQuery { from, limit: reports::MAX_ROWS, ..query.clone() };
    let rows = all(config, |reader, from| reports::signatures(reader, &query(from)))?;
    Ok(lines(&rows, as_json, "no such signature was made"))
}

/// The rows of all pages.
fn all<T>(
    config: &Config,
    page: impl Fn(&Reader<'_>, u64) -> Result<Page<T>, StoreError>,
) -> Result<Vec<T>, Failure> {
    let store = Store::open_read_only(&existing(config)?)?;
    let (mut rows, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = page(&store.reader(), from)?;
        rows.extend(page.rows);
        next = page.next;
    }
    Ok(rows)
}

pub(super) fn lines<T: Serialize>(rows: &[T], as_json: bool, nothing: &str) -> String
where
    for<'a> Text<'a, T>: fmt::Display,
{
    match (as_json, rows) {
        (true, rows) => rows.iter().map(|row| format!("{}\n", serde_json::json!(row))).collect(),
        (false, []) => format!("{nothing}\n"),
        (false, rows) => rows.iter().map(|row| Text(row).to_string()).collect(),
    }
}

/// A row for people.
pub(super) struct Text<'a, T>(&'a T);

/// A time for people, in UTC.
pub(super) fn time(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

impl fmt::Display for Text<'_, TimelineEntry> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let TimelineEntry { user_id, membership, sender, event_id, via, .. } = row;
        write!(f, "{} {user_id}: {membership}", time(row.at))?;
        if sender != user_id {
            write!(f, " by {sender}")?;
        }
        write!(f, "\n  {event_id}, {via}")?;
        if let Some(server) = &row.received_from {
            write!(f, " with {server}")?;
        }
        writeln!(f, "; decided by {}", row.decided_by)?;
        if !row.signed_by.is_empty() {
            let names: Vec<_> = row.signed_by.iter().map(|server| server.as_str()).collect();
            writeln!(f, "  signed by {}", names.join(", "))?;
        }
        for delivery in &row.delivered {
            let (server, at) = (&delivery.server, time(delivery.at));
            match &delivery.refused {
                None => writeln!(f, "  taken by {server} at {at}")?,
                Some(why) => writeln!(f, "  refused by {server} at {at}: {why}")?,
            }
        }
        row.waiting.iter().try_for_each(|server| writeln!(f, "  waits for {server}"))
    }
}

impl fmt::Display for Text<'_, Departure> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Departure { user_id, room_id, attempts, departed_at, retry_at, .. } = self.0;
        let (since, next) = (time(*departed_at), time(*retry_at));
        writeln!(
            f,
            "{user_id} left {room_id} at {since}: {attempts} attempts, the next at {next}"
        )?;
        let last = &self.0.last;
        last.iter().try_for_each(|attempt| writeln!(f, "  {}: {}", attempt.server, attempt.outcome))
    }
}

impl fmt::Display for Text<'_, Invite> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invite { user_id, room_id, membership, sender, received_at, .. } = self.0;
        write!(f, "{user_id}: {membership} to {room_id} at {}", time(*received_at))?;
        if sender != user_id {
            write!(f, " by {sender}")?;
        }
        if let Some(since) = self.0.doubted_since {
            write!(f, ", perhaps withdrawn at {}", time(since))?;
        }
        if let Some(since) = self.0.unreachable_since {
            write!(f, ", unreachable since {}", time(since))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Text<'_, CheckedInvite> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckedInvite { invite, standing, unclear } = self.0;
        let standing = match standing {
            Standing::Live => "stands",
            Standing::Withdrawn => "is withdrawn",
            Standing::RoomGone => "the room is gone",
            Standing::Unknown => "nobody says whether it stands",
        };
        let Invite { user_id, room_id, membership, sender, .. } = invite;
        writeln!(f, "{user_id}: {membership} to {room_id} by {sender}: {standing}")?;
        let lines = unclear.iter().map(|said| (&said.server, said.answer.escape_debug()));
        lines.into_iter().try_for_each(|(server, answer)| writeln!(f, "  {server}: {answer}"))
    }
}

impl fmt::Display for Text<'_, ContentReport> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ContentReport { id, reporter, reported, reason, at } = self.0;
        write!(f, "{id} {} {reporter} reports ", time(*at))?;
        match reported {
            Reported::Event { room_id, event_id, sender } => {
                writeln!(f, "{event_id} of {sender} in {room_id}")?;
            }
            Reported::Room { room_id } => writeln!(f, "{room_id}")?,
            Reported::User { user_id } => writeln!(f, "{user_id}")?,
        }
        // Users write what they like: nothing of it moves the cursor.
        let reason = reason.as_deref().unwrap_or_default();
        reason.lines().try_for_each(|line| writeln!(f, "  {}", line.escape_debug()))
    }
}

impl fmt::Display for Text<'_, Signature> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signature { position, purpose, event_id, peer, at } = self.0;
        write!(f, "{position} {} {purpose} {event_id}", time(*at))?;
        peer.iter().try_for_each(|peer| write!(f, " with {peer}"))?;
        writeln!(f)
    }
}
