//! Whether pending invites and knocks still stand, as the servers say that must know. They are only
//! asked, and nothing is changed by what they say: that is for their users, and for triage.

use exeunt_core::PendingMembership;
use exeunt_membership::{Class, Probed, judge_probe, probe_request, probe_servers};
use futures_util::{StreamExt, stream};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    Call, RoomError, Rooms,
    reports::{self, Invite},
};

/// Invites that are asked about at once.
const ASKED_AT_ONCE: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It can be accepted or turned down.
    Live,
    /// The room is there, and the user not invited.
    Withdrawn,
    RoomGone,
    /// Nobody who must know gave a clear answer.
    Unknown,
}

/// A pending invite or knock, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckedInvite {
    #[serde(flatten)]
    pub invite: Invite,
    pub standing: Standing,
    /// What each server said that gave no clear answer.
    pub unclear: Vec<Unclear>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unclear {
    pub server: OwnedServerName,
    pub answer: String,
}

impl Rooms {
    /// Asks about a page of pending invites and knocks, by user and room, from (and without)
    /// `after`.
    pub async fn check_invites(
        &self,
        after: Option<(OwnedUserId, OwnedRoomId)>,
    ) -> Result<Vec<CheckedInvite>, RoomError> {
        let now = self.now();
        let read = self.store().read(move |reader| reports::pending(reader, after, now));
        let checks = read.await?.into_iter().map(|(invite, pending)| async move {
            let (standing, unclear) = self.standing(&pending).await;
            CheckedInvite { invite, standing, unclear }
        });
        Ok(stream::iter(checks).buffered(ASKED_AT_ONCE).collect().await)
    }

    /// The first clear answer of a server that must know counts.
    async fn standing(&self, pending: &PendingMembership) -> (Standing, Vec<Unclear>) {
        let mut unclear = Vec::new();
        for server in probe_servers(pending, self.server_name()) {
            let request = probe_request(pending, server.clone());
            let answer = self.call(&server, Call::Make(&request)).await;
            let judged = judge_probe(pending, &answer);
            let answer = match (judged, answer) {
                (Probed::Live, _) => return (Standing::Live, unclear),
                (_, Err(failure)) => match failure.class() {
                    Class::NoRoom => return (Standing::RoomGone, unclear),
                    Class::NotInvited => return (Standing::Withdrawn, unclear),
                    Class::Transient => failure.to_string(),
                },
                (_, Ok(_)) => "its template is not one of a leave".into(),
            };
            unclear.push(Unclear { server, answer });
        }
        (Standing::Unknown, unclear)
    }
}
