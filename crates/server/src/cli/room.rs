//! `exeunt room explain`

use std::fmt;

use exeunt_core::ruma::{EventId, OwnedEventId, OwnedRoomId};
use exeunt_room::explain::{Explanation, Refusal, explain};
use exeunt_state_res::{Check, Recorder};
use exeunt_store::{Store, records::Verdict};

use super::existing;
use crate::{config::Config, failure::Failure};

/// Why an event is in its room or not, as text or as one JSON object.
pub fn explain_event(
    config: &Config,
    room_id: &OwnedRoomId,
    event_id: &OwnedEventId,
    as_json: bool,
) -> Result<String, Failure> {
    let store = Store::open_read_only(&existing(config)?)?;
    let found = explain(&store.reader(), room_id, event_id)?;
    let unknown =
        || Failure::Input(format!("{event_id} is not known here as an event of {room_id}"));
    let explanation = found.ok_or_else(unknown)?;
    Ok(match as_json {
        true => format!("{}\n", serde_json::json!(explanation)),
        false => Text(&explanation).to_string(),
    })
}

struct Text<'a>(&'a Explanation);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { event_id, room_version, depth, generation, .. } = self.0;
        writeln!(f, "{}", self.line(event_id))?;
        writeln!(f, "room version {room_version}, depth {depth}, generation {generation}")?;
        match &self.0.received_from {
            Some(server) => writeln!(f, "received from {server}")?,
            None => writeln!(f, "sent from here")?,
        }
        match &self.0.verdict {
            Verdict::Accepted if !self.0.is_placed => writeln!(f, "an outlier, accepted")?,
            Verdict::Accepted => writeln!(f, "accepted")?,
            Verdict::SoftFailed(why) => writeln!(f, "soft-failed: {why}")?,
            Verdict::Rejected(why) => writeln!(f, "rejected: {why}")?,
        }
        self.check(f, "its auth events", &self.0.by_auth_events)?;
        if self.0.is_placed {
            let state = match self.0.is_told {
                true => "the state before it, which another server told",
                false => "the state before it",
            };
            self.check(f, state, &self.0.by_state_before)?;
        }
        self.check(f, "the current state", &self.0.by_current_state)?;
        match &self.0.resolution {
            None => writeln!(f, "\nthe state before it was not in conflict"),
            Some(resolution) => self.resolution(f, resolution),
        }
    }
}

impl Text<'_> {
    fn check(&self, f: &mut fmt::Formatter<'_>, by: &str, refusal: &Refusal) -> fmt::Result {
        match refusal {
            None => writeln!(f, "  by {by}: allowed"),
            Some(why) => writeln!(f, "  by {by}: {why}"),
        }
    }

    fn resolution(&self, f: &mut fmt::Formatter<'_>, trace: &Recorder) -> fmt::Result {
        writeln!(f, "\nthe state before it was resolved from {} states", self.0.states)?;
        writeln!(f, "\nin conflict:")?;
        for row in &trace.conflict {
            writeln!(f, "  {} {:?}", row.kind, row.state_key)?;
            for id in &row.candidates {
                match id {
                    Some(id) => writeln!(f, "    {}", self.line(id))?,
                    None => writeln!(f, "    nothing")?,
                }
            }
        }
        self.list(f, "full conflicted set", &trace.full_conflicted_set)?;
        self.list(f, "mainline, from the newest power levels", &trace.mainline)?;
        writeln!(f, "\nchecked in this order:")?;
        for Check { event_id, refused, .. } in &trace.checks {
            let outcome = refused.as_deref().unwrap_or("applied");
            writeln!(f, "  {}: {outcome}", self.line(event_id))?;
        }
        writeln!(f, "\nresolved:")?;
        for row in &trace.resolved {
            writeln!(f, "  {}", self.line(&row.event_id))?;
        }
        Ok(())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, what: &str, ids: &[OwnedEventId]) -> fmt::Result {
        if ids.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{what}:")?;
        ids.iter().try_for_each(|id| writeln!(f, "  {}", self.line(id)))
    }

    /// The id with type, state key and sender.
    fn line(&self, id: &EventId) -> String {
        let Some(gist) = self.0.events.get(id) else { return id.to_string() };
        let mut line = format!("{id} {}", gist.kind);
        if let Some(membership) = &gist.membership {
            line += &format!(" {membership}");
        }
        match &gist.state_key {
            Some(key) if !key.is_empty() => line += &format!(" of {key}"),
            _ => {}
        }
        line + &format!(" by {}", gist.sender)
    }
}
