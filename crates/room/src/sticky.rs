//! Sticky leaves: what a user of ours left by their own word stays left, whatever a resolution of
//! states makes of it. The room is not shown, an admin is told, and the leave is sent again.
//!
//! State resolution before version 2.1 can bring an old join back (pains C5, feature 3). A join
//! needs our signature, so that we know whether there was a newer one.

use exeunt_core::{Object, Pdu};
use exeunt_store::{Batch, Reader, StoreError, records::MembershipLogRecord, tables};
use metrics::counter;
use ruma::{RoomId, ServerName, UserId};

use crate::{
    Intent, RoomError, Rooms,
    graph::{Graph, is_joined},
    locks::RoomGuard,
    place::Placement,
};

impl Rooms {
    /// Sends the leave of a user of ours again, who is joined by the room's state and not by their
    /// own word. A failure leaves the room hidden, and the state as it is.
    pub(crate) async fn leave_again(&self, guard: &RoomGuard, user: &UserId) {
        let room_id = guard.room_id();
        tracing::warn!(
            target: "membership", %room_id, %user,
            "the room's state says again that a user is joined who has left; leaving again"
        );
        counter!("exeunt_leaves_undone_total").increment(1);
        if let Err(error) = self.try_leave_again(guard, user).await {
            tracing::error!(
                target: "membership", %room_id, %user, %error,
                "the leave could not be sent again: other servers take the user for joined"
            );
        }
    }

    /// Sends the leaves again that we were stopped from sending, or failed to. How many were due.
    pub async fn sweep_undone_leaves(&self) -> Result<usize, RoomError> {
        let ours = self.server_name().to_owned();
        let due = self.store().read(move |reader| {
            let mut due = Vec::new();
            for row in reader.scan::<tables::Memberships>(()).iter() {
                let ((user, room_id), record) = row?;
                if record.membership == "leave" && is_undone_now(reader, &room_id, &user, &ours)? {
                    due.push((user, room_id));
                }
            }
            Ok::<_, RoomError>(due)
        });
        let due = due.await?;
        for (user, room_id) in &due {
            let guard = self.inner.locks.lock(room_id).await;
            self.leave_again(&guard, user).await;
        }
        Ok(due.len())
    }

    async fn try_leave_again(&self, guard: &RoomGuard, user: &UserId) -> Result<(), RoomError> {
        let (who, room, ours) =
            (user.to_owned(), guard.room_id().to_owned(), self.server_name().to_owned());
        let key = (who.clone(), room.clone());
        let read = self.store().read(move |reader| {
            let row = reader.get::<tables::Memberships>(&key)?;
            let has_left = row.is_some_and(|row| row.membership == "leave");
            let undone = has_left && is_undone_now(reader, &room, &who, &ours)?;
            Ok::<_, RoomError>((undone, reader.contains::<tables::Departures>(&key)?))
        });
        let (undone, departing) = read.await?;
        if !undone {
            return Ok(());
        }
        let mut content = Object::new();
        content.insert("membership".into(), "leave".into());
        let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
        self.append_locked(guard, intent).await?;
        if departing {
            // The leave is an event of the room now, which goes to all its servers.
            let mut batch = Batch::default();
            batch.delete::<tables::Departures>(&(user.to_owned(), guard.room_id().to_owned()));
            self.commit(guard, Placement::only(batch)).await?;
        }
        Ok(())
    }
}

/// Whether we reside in the room, and its state has the user joined, or invited by what they have
/// turned down.
fn is_undone_now(
    reader: &Reader<'_>,
    room_id: &RoomId,
    user: &UserId,
    ours: &ServerName,
) -> Result<bool, RoomError> {
    if !is_joined(reader, room_id, ours)? {
        return Ok(false);
    }
    let Some(event) = Graph::of(reader, room_id)?.current("m.room.member", user.as_str())? else {
        return Ok(false);
    };
    Ok(event.membership() == Some("join") || undoes_leave(reader, room_id, user, &event)?)
}

/// Whether the room's state now says that a user of ours is joined or invited by an event that is
/// older than the user's own last leave.
pub(crate) fn undoes_leave(
    reader: &Reader<'_>,
    room_id: &RoomId,
    user: &UserId,
    event: &Pdu,
) -> Result<bool, StoreError> {
    if !matches!(event.membership(), Some("join" | "invite")) {
        return Ok(false);
    }
    let log = reader.scan::<tables::MembershipLog>((room_id.to_owned(), user.to_owned()));
    let mut lines = Vec::new();
    for row in log.rev().iter() {
        lines.push(row?.1);
    }
    Ok(match event.membership() {
        Some("join") => is_undone(lines.iter(), user, event),
        _ => is_turned_down(lines.iter(), user, event),
    })
}

/// The same for an invite, which we have seen before: the rejection may have reached the room and
/// not the server that tells its state (seed 6552).
fn is_turned_down<'a>(
    lines: impl Iterator<Item = &'a MembershipLogRecord>,
    user: &UserId,
    invite: &Pdu,
) -> bool {
    let mut has_left = false;
    for line in lines.filter(|line| line.via != "resolution") {
        if line.event_id == invite.event_id() {
            return has_left;
        }
        match line.membership.as_str() {
            "leave" => has_left |= line.sender == user,
            _ if !has_left => return false,
            _ => {}
        }
    }
    false
}

/// The decision, from the membership timeline of the user, newest first. What a resolution did
/// before counts for nothing. A join that we never saw is older if it was signed before the leave.
fn is_undone<'a>(
    lines: impl Iterator<Item = &'a MembershipLogRecord>,
    user: &UserId,
    join: &Pdu,
) -> bool {
    let mut left_at = None;
    for line in lines.filter(|line| line.sender == user && line.via != "resolution") {
        match (line.membership.as_str(), left_at) {
            ("leave", None) => left_at = Some(line.at),
            ("join", None) => return false,
            ("join", Some(_)) if line.event_id == join.event_id() => return true,
            _ => {}
        }
    }
    left_at.is_some_and(|left_at| join.origin_server_ts() < left_at)
}

#[cfg(test)]
mod tests {
    use exeunt_core::{Draft, RoomVersion, Signer};
    use ruma::{OwnedEventId, room_id, server_name, user_id};

    use super::*;

    fn join(sent: u64) -> Pdu {
        let user = user_id!("@bob:here.example");
        let draft = Draft {
            version: RoomVersion::parse("10").unwrap(),
            room_id: Some(room_id!("!r:here.example").to_owned()),
            sender: user.to_owned(),
            kind: "m.room.member".into(),
            state_key: Some(user.to_string()),
            content: Object::from_iter([("membership".to_owned(), "join".into())]),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: sent,
        };
        let signer = Signer::new(server_name!("here.example").to_owned(), "ed25519:1", &[7; 32]);
        draft.sign(&signer.unwrap()).unwrap().into_pdu()
    }

    type Line = (&'static str, &'static str, &'static str, u64);

    /// Lines newest first: who, membership, how it came, and when; `J` stands for the join asked
    /// about.
    #[test]
    fn the_table() {
        let event = join(100);
        let cases: [(&[Line], bool); 12] = [
            (&[], false),
            (&[("bob", "leave", "local", 200), ("bob", "J", "local", 100)], true),
            // Its time is as good as the clock was; that it came before is certain.
            (&[("bob", "leave", "local", 50), ("bob", "J", "transaction", 10)], true),
            (&[("bob", "J", "local", 100), ("bob", "leave", "local", 50)], false),
            (&[("bob", "join", "local", 300), ("bob", "leave", "local", 200)], false),
            // What a resolution said is not the user's word.
            (
                &[
                    ("bob", "J", "resolution", 300),
                    ("bob", "leave", "handshake", 200),
                    ("bob", "J", "local", 100),
                ],
                true,
            ),
            // A join that never came here is told by its time.
            (&[("bob", "leave", "out-of-band", 200)], true),
            (&[("bob", "leave", "local", 99), ("bob", "join", "local", 10)], false),
            // Others' doings after the leave do not make it undone, and are no leave of the user's.
            (&[("ann", "invite", "transaction", 300), ("bob", "leave", "local", 200)], true),
            (&[("ann", "ban", "transaction", 300), ("bob", "leave", "local", 200)], true),
            (&[("ann", "leave", "transaction", 200), ("bob", "J", "local", 100)], false),
            (&[("ann", "leave", "transaction", 200)], false),
        ];
        for (lines, expected) in cases {
            let lines: Vec<_> = lines
                .iter()
                .map(|(who, membership, via, at)| MembershipLogRecord {
                    membership: if *membership == "J" { "join" } else { membership }.to_string(),
                    event_id: match *membership {
                        "J" => event.event_id().to_owned(),
                        _ => OwnedEventId::try_from(format!("$other{at}")).unwrap(),
                    },
                    sender: UserId::parse(format!("@{who}:here.example")).unwrap(),
                    via: (*via).to_owned(),
                    received_from: None,
                    at: *at,
                })
                .collect();
            let user = user_id!("@bob:here.example");
            assert_eq!(is_undone(lines.iter(), user, &event), expected, "{lines:?}");
        }
    }
}
