//! Many pending invites at once: which there are, and away with them (pains B1, B2).

use exeunt_acl::ServerAcl;
use exeunt_core::Object;
use exeunt_membership::candidates;
use exeunt_store::{Reader, StoreError, records::MembershipRecord, tables};
use futures_util::{StreamExt, stream};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{RoomError, Rooms, graph::load_event};

/// Invites that one call looks at further; those beyond are for another call.
pub const MAX_TRIAGED: usize = 100_000;
/// Invites that a report lists; all are counted.
pub const MAX_LISTED: usize = 1_000;
/// Invites that are turned down here at once.
const REJECTS_AT_ONCE: usize = 64;
/// Rejections of one triage that are told to other servers at once.
pub const TOLD_AT_ONCE: usize = 8;
/// The outbox leaves the rejections of a triage to it for this long.
const TELLING_MS: u64 = 600_000;

/// Which invites. What is not given is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TriageFilter {
    /// The invited user.
    pub user: Option<OwnedUserId>,
    pub inviter: Option<OwnedUserId>,
    /// A glob on the inviter's server: `*` and `?`, as in server ACLs.
    pub server: Option<String>,
    pub room: Option<OwnedRoomId>,
    pub min_age_ms: Option<u64>,
    pub max_age_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriageMode {
    /// Nothing is done.
    #[default]
    DryRun,
    /// They are rejected like any other.
    Normal,
    /// The users are out here, and no server hears of it: a spammer does not learn that somebody
    /// is there. Invites to rooms that we reside in stay, for their rejection is an event.
    Silent,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriageReport {
    pub matched: usize,
    pub rejected: usize,
    /// Those that silence cannot end.
    pub kept: usize,
    /// The first of those that matched.
    pub invites: Vec<TriagedInvite>,
    pub failed: Vec<TriageFailure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriagedInvite {
    pub user: OwnedUserId,
    pub room: OwnedRoomId,
    pub inviter: OwnedUserId,
    /// Milliseconds since the epoch.
    pub received_at: u64,
    /// We reside in the room: the rejection is an event.
    pub resident: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriageFailure {
    pub user: OwnedUserId,
    pub room: OwnedRoomId,
    pub error: String,
}

/// What became of one.
enum Rejected {
    /// Here, with a departure that waits to be told.
    Queued,
    Here,
    Kept,
}

impl Rooms {
    /// Finds pending invites of local users and turns them down. Their end is durable when this
    /// returns; the other servers are told after that, a few at a time.
    pub async fn triage(
        &self,
        filter: TriageFilter,
        mode: TriageMode,
    ) -> Result<TriageReport, RoomError> {
        let now = self.now();
        let found = self.store().read(move |reader| find(reader, &filter, now)).await?;
        let mut report = TriageReport { matched: found.len(), ..TriageReport::default() };
        report.invites = found.iter().take(MAX_LISTED).cloned().collect();
        if mode == TriageMode::DryRun {
            return Ok(report);
        }
        let each = found.into_iter().map(|invite| async move {
            let outcome = self.turn_down(&invite, mode).await;
            (invite, outcome)
        });
        let mut each = stream::iter(each).buffer_unordered(REJECTS_AT_ONCE);
        let mut queued = Vec::new();
        while let Some((TriagedInvite { user, room, .. }, outcome)) = each.next().await {
            match outcome {
                Ok(Rejected::Kept) => report.kept += 1,
                Ok(Rejected::Here) => report.rejected += 1,
                Ok(Rejected::Queued) => {
                    report.rejected += 1;
                    queued.push((user, room));
                }
                Err(error) => {
                    report.failed.push(TriageFailure { user, room, error: error.to_string() });
                }
            }
        }
        let TriageReport { matched, rejected, kept, .. } = report;
        tracing::info!(?mode, matched, rejected, kept, "pending invites were triaged");
        if !queued.is_empty() {
            let rooms = self.clone();
            tokio::spawn(async move { rooms.tell(queued).await });
        }
        Ok(report)
    }

    async fn turn_down(
        &self,
        invite: &TriagedInvite,
        mode: TriageMode,
    ) -> Result<Rejected, RoomError> {
        let TriagedInvite { user, room, .. } = invite;
        if invite.resident {
            if mode == TriageMode::Silent {
                return Ok(Rejected::Kept);
            }
            self.leave(user, room, None).await?;
            return Ok(Rejected::Here);
        }
        let _guard = self.inner.locks.lock(room).await;
        let key = (user.clone(), room.clone());
        let pending = self.store().read(move |reader| reader.get::<tables::Pending>(&key)).await?;
        // Answered since.
        let Some(pending) = pending else { return Ok(Rejected::Here) };
        let someone = !candidates(&pending, self.server_name()).is_empty();
        let tell = (mode == TriageMode::Normal && someone).then_some(TELLING_MS);
        self.leave_out_of_band(&pending, None, tell).await?;
        Ok(if tell.is_some() { Rejected::Queued } else { Rejected::Here })
    }

    /// Tries each of the departures once; the outbox has what nobody took.
    async fn tell(&self, departures: Vec<(OwnedUserId, OwnedRoomId)>) {
        let each = departures.into_iter().map(|(user, room)| async move {
            if let Err(error) = self.attempt_departure(&user, &room).await {
                tracing::error!(%user, %room, %error, "a departure could not be tried");
            }
        });
        stream::iter(each).buffer_unordered(TOLD_AT_ONCE).collect::<()>().await;
        self.inner.wake.departure_queued();
    }
}

fn find(
    reader: &Reader<'_>,
    filter: &TriageFilter,
    now: u64,
) -> Result<Vec<TriagedInvite>, RoomError> {
    let servers = filter.server.as_deref().map(glob);
    let mut found = Vec::new();
    let mut look = |row: Result<((OwnedUserId, OwnedRoomId), MembershipRecord), StoreError>| {
        let (key, record) = row?;
        let fits = record.membership == "invite"
            && found.len() < MAX_TRIAGED
            && filter.inviter.as_ref().is_none_or(|inviter| record.sender == *inviter)
            && filter.room.as_ref().is_none_or(|room| key.1 == *room)
            && servers.as_ref().is_none_or(|glob| glob.allows(record.sender.server_name()));
        if !fits {
            return Ok(());
        }
        let pending = reader.get::<tables::Pending>(&key)?;
        let received_at = match &pending {
            Some(pending) => pending.received_at,
            None => load_event(reader, &record.event_id)?
                .map_or(0, |known| known.pdu.origin_server_ts()),
        };
        let age = now.saturating_sub(received_at);
        if filter.min_age_ms.is_none_or(|min| age >= min)
            && filter.max_age_ms.is_none_or(|max| age <= max)
        {
            let (resident, (user, room)) = (pending.is_none(), key);
            let inviter = record.sender;
            found.push(TriagedInvite { user, room, inviter, received_at, resident });
        }
        Ok::<_, RoomError>(())
    };
    match &filter.user {
        Some(user) => {
            reader.scan::<tables::Memberships>(user.clone()).iter().try_for_each(&mut look)
        }
        None => reader.scan::<tables::Memberships>(()).iter().try_for_each(&mut look),
    }?;
    Ok(found)
}

/// A matcher of server names by one glob, with the rules of server ACLs.
fn glob(pattern: &str) -> ServerAcl {
    let mut content = Object::new();
    content.insert("allow".into(), json!([pattern]));
    content.insert("allow_ip_literals".into(), true.into());
    ServerAcl::compile(&content)
}

#[cfg(test)]
mod tests {
    fn matches(pattern: &str, server: &str) -> bool {
        super::glob(pattern).allows(&ruma::ServerName::parse(server).unwrap())
    }

    #[test]
    fn globs_are_those_of_server_acls() {
        assert!(matches("*.spam.example", "a.spam.example"));
        assert!(matches("SPAM.example", "spam.example"));
        assert!(matches("spam.example", "spam.example:8448"));
        assert!(matches("10.0.0.?", "10.0.0.1"));
        assert!(!matches("*.spam.example", "spam.example"));
        assert!(!matches("spam", "spam.example"));
    }
}
