//! What follows when the last user of a server is in a room no longer (decision 0017), and what one
//! is sent that has come into it.

use exeunt_core::{CheckedPdu, Pdu, PendingMembership, StateKey};
use exeunt_store::{
    Batch,
    records::{OutboxItem, RoomRecord, Root},
    tables,
};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};

use crate::{
    RoomError, Rooms,
    change::{Change, Effects, is_join},
    graph::{Graph, is_joined},
    heads,
    inbound::{has_moved_on, put_pending},
    invite::shown_to_invited,
    leave::pending_event,
    locks::RoomGuard,
    place::{MAX_OWN_PREV_EVENTS, Source},
};

/// Most rows of a server's outbox that are looked at for one that is there already.
const MAX_LOOKS: usize = 50;

impl Change<'_> {
    /// Notes the servers that are out of the room now and cannot know it from what they were sent.
    /// Where it is us, invites and knocks of our users go on from outside the room.
    pub fn part(&self, room: &mut RoomRecord, effects: &mut Effects) -> Result<(), RoomError> {
        if effects.departed.contains(self.ours) {
            self.keep_pending(room.state, effects)?;
            self.show_signed_invites(room.state, effects)?;
        }
        // What comes from here is sent to all who were in the room before it.
        if !matches!(self.source, Source::Federation { .. }) {
            return Ok(());
        }
        for server in &effects.departed {
            let known = server == self.ours || room.untold.contains(server);
            if !known && !self.is_told_by_sender(server)? {
                room.untold.push(server.clone());
            }
        }
        effects.untold = !room.untold.is_empty();
        Ok(())
    }

    /// Sends a server whose event is soft-failed what took its user out of the room, where the user
    /// is in it by the event's own account: the server may have missed it.
    pub fn answer_outsider(&self, after: Root) -> Result<Effects, RoomError> {
        let (graph, user, server) = (self.graph, self.event.sender(), self.event.origin());
        let mut effects = Effects::default();
        if server == self.ours
            || is_joined(graph.reader, &graph.room_id, server)?
            || !is_join(&graph.state_event(after, &StateKey::member(user))?)
        {
            return Ok(effects);
        }
        let holds = graph.current("m.room.member", user.as_str())?;
        let expels = |event: &Pdu| {
            matches!(event.membership(), Some("leave" | "ban")) && event.sender() != user
        };
        let Some(expulsion) = holds.filter(expels) else { return Ok(effects) };
        let item = OutboxItem::Pdu(expulsion.event_id().to_owned());
        let waiting = graph.reader.scan::<tables::Outbox>(server.to_owned()).limit(MAX_LOOKS);
        if waiting.collect()?.iter().any(|(_, waits)| *waits == item) {
            return Ok(effects);
        }
        let to = server.to_owned();
        effects.destinations.push(to.clone());
        graph.batch().at_position(move |position, batch| {
            batch.put::<tables::Outbox>(&(to, position), &item);
        });
        Ok(effects)
    }

    /// Whether the server knows of it by the event: because its last user left by it as the server
    /// has it, or because it takes out a user who is in the room as the event's sender has it, who so
    /// sends it there.
    fn is_told_by_sender(&self, server: &ServerName) -> Result<bool, RoomError> {
        let Some(user) = self.event.target().filter(|user| user.server_name() == server) else {
            return Ok(false);
        };
        let placed = self.graph.event_here(self.event.event_id())?;
        let Some(states) = placed.record.states else { return Ok(false) };
        if self.event.origin() == server {
            return Ok(!self.graph.has_member(states.after, server, "join")?);
        }
        Ok(is_join(&self.graph.state_event(states.before, &StateKey::member(user))?))
    }

    /// The room tells of an invite: it is kept no longer.
    pub fn told_of_invite(&self) -> Result<(), RoomError> {
        let Some(user) = self.event.target().filter(|user| user.server_name() == self.ours) else {
            return Ok(());
        };
        let key = (self.graph.room_id.clone(), user.to_owned());
        if self.event.membership() == Some("invite")
            && let Some(kept) = self.graph.reader.get::<tables::SignedInvites>(&key)?
            && pending_event(&kept)?.event_id() == self.event.event_id()
        {
            self.graph.batch().delete::<tables::SignedInvites>(&key);
        }
        Ok(())
    }

    /// Keeps what it takes to end the invites and knocks that the room's state has of our users:
    /// from now on we hear of them from outside.
    fn keep_pending(&self, state: Root, effects: &Effects) -> Result<(), RoomError> {
        let graph = self.graph;
        let mut others = graph.joined_servers()?;
        others.retain(|server| server != self.ours);
        let members = graph.reader.scan::<tables::LocalMembers>(graph.room_id.clone());
        for ((_, user), known) in members.collect()? {
            let Some(event) = graph.state_event(state, &StateKey::member(&user))? else { continue };
            let membership = event.membership().unwrap_or_default();
            let is_current = known == membership || effects.users.contains(&user);
            if !is_current || !matches!(membership, "invite" | "knock") {
                continue;
            }
            let pending = PendingMembership {
                stripped_state: shown_to_invited(graph, event.sender())?,
                candidates: others.clone(),
                ..PendingMembership::of(&user, &event, self.now)
            };
            graph.batch().put::<tables::Pending>(&(user, graph.room_id.clone()), &pending);
        }
        Ok(())
    }

    fn show_signed_invites(&self, state: Root, effects: &mut Effects) -> Result<(), RoomError> {
        let graph = self.graph;
        let signed = graph.reader.scan::<tables::SignedInvites>(graph.room_id.clone());
        for (key, invite) in signed.collect()? {
            let event = CheckedPdu::trusted(pending_event(&invite)?);
            let user = key.1.clone();
            let row = (user.clone(), graph.room_id.clone());
            let in_state = graph.state_event(state, &StateKey::member(&user))?;
            let has_moved_on = in_state.is_some_and(|now| now.depth() >= event.depth())
                || has_moved_on(graph.reader, &row, event.depth())?;
            let mut batch = graph.batch();
            batch.delete::<tables::SignedInvites>(&key);
            if !has_moved_on {
                put_pending(&mut batch, &event, invite, self.now);
                effects.users.insert(user);
            }
        }
        Ok(())
    }
}

impl Rooms {
    /// Sends the room's heads to the servers that are out of it and cannot know it: with them they
    /// come to the same state. Several are followed by one event more, for by itself each may be one
    /// that such a server soft-fails. In the outbox a batch has one row for a server.
    pub(crate) async fn tell_departed(&self, guard: &RoomGuard) -> Result<(), RoomError> {
        let (_, mut heads) = self.heads(guard.room_id()).await?;
        Box::pin(self.tie_heads(guard)).await?;
        let (mut room, tied) = self.heads(guard.room_id()).await?;
        for head in tied {
            if !heads.contains(&head) {
                heads.push(head);
            }
        }
        let untold = std::mem::take(&mut room.untold);
        let mut batches: Vec<_> = heads.iter().map(|head| rows(&untold, head)).collect();
        if let Some(last) = batches.last_mut() {
            last.put::<tables::Rooms>(&guard.room_id().to_owned(), &room);
        }
        for batch in batches {
            self.store().commit(batch).await?;
        }
        self.inner.wake.wake(&untold);
        Ok(())
    }

    /// Sends a server whose user has joined the heads that the join does not follow: they went to
    /// those who were in the room while the join was under way, and are in nothing that it was given.
    pub(crate) async fn tell_newcomer(&self, join: &CheckedPdu) -> Result<(), RoomError> {
        let newcomer = [join.origin().to_owned()];
        let (_, heads) = self.heads(join.room_id()).await?;
        for head in heads.iter().filter(|head| *head != join.event_id()) {
            self.store().commit(rows(&newcomer, head)).await?;
            self.inner.wake.wake(&newcomer);
        }
        Ok(())
    }

    /// The room, and the newest of its heads.
    async fn heads(&self, room_id: &RoomId) -> Result<(RoomRecord, Vec<OwnedEventId>), RoomError> {
        let room_id = room_id.to_owned();
        let read = self.store().read(move |reader| {
            let graph = Graph::of(reader, &room_id)?;
            let heads = heads::newest(&graph.room, MAX_OWN_PREV_EVENTS);
            Ok::<_, RoomError>((graph.room, heads))
        });
        read.await
    }
}

/// An event for each of the servers.
fn rows(servers: &[OwnedServerName], event: &OwnedEventId) -> Batch {
    let (servers, event) = (servers.to_vec(), event.clone());
    let mut batch = Batch::default();
    batch.at_position(move |position, batch| {
        for server in servers {
            batch.put::<tables::Outbox>(&(server, position), &OutboxItem::Pdu(event.clone()));
        }
    });
    batch
}
