//! Inviting: local users through the graph, users of other servers with their server's signature.
//!
//! Specification: server-server API, "Inviting to a room"; spec-map rows IN and 4.5.

use exeunt_core::{CheckedPdu, Object, Pdu, wire};
use exeunt_membership::SendApi;
use exeunt_state_res::AuthError;
use exeunt_store::{Batch, records::OutboxItem, tables};
use ruma::{EventId, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::{
    Call, Intent, RemoteError, RoomError, Rooms,
    graph::{Graph, is_joined},
    locks::RoomGuard,
    place::{Placement, Source, check},
    signing::Signature,
    stripped::clean_state,
};

/// State that an invited user may see before joining (client-server API, "Stripped state").
const INVITE_STATE: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

impl Rooms {
    /// Invites a user. `content` holds the reason, `is_direct` and the like. An invite to a user
    /// of another server is placed only after that server has signed it.
    pub async fn invite(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        content: Object,
    ) -> Result<(), RoomError> {
        let intent = invite_intent(sender, target, content);
        if target.server_name() == self.server_name() {
            self.check_not_blocked(sender, target).await?;
            self.append(room_id, intent).await?;
            return Ok(());
        }
        let guard = self.inner.locks.lock(room_id).await;
        let signed = self.sign_event(self.draft_here(&guard, intent).await?)?;
        self.invite_outside(guard, target, signed).await
    }

    /// Invites a user of another server by a third-party invite that their server redeems.
    pub(crate) async fn invite_by_exchange(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        content: Object,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let draft = self.draft_here(&guard, invite_intent(sender, target, content)).await?;
        let signed = self.sign_exchange(draft, target.server_name())?;
        self.invite_outside(guard, target, signed).await
    }

    async fn invite_outside(
        &self,
        guard: RoomGuard,
        target: &UserId,
        (event, signature): (CheckedPdu, Signature),
    ) -> Result<(), RoomError> {
        let room_id = &*guard.room_id().to_owned();
        let was_there = self.is_there(target, room_id).await?;
        let state = self.check_and_describe(room_id, &event).await?;
        drop(guard);
        self.journal(signature).await?;
        let signed = self.ask_to_sign(target, &event, &state).await?;
        let guard = self.inner.locks.lock(room_id).await;
        let source = Source::Local { transaction: None, signature: None };
        match self.place(&guard, signed.clone(), source, None).await {
            Err(refused @ (RoomError::Auth(_) | RoomError::Forbidden(_))) => {
                self.tell_what_holds(&guard, target).await?;
                return Err(refused);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if was_there && !self.is_there(target, room_id).await? {
            // It waits for the room to tell it (row IN9), and has left the room meanwhile.
            self.send_outside(&guard, target.server_name(), signed.event_id()).await?;
        }
        Ok(())
    }

    /// Whether the user's server is in the room.
    async fn is_there(&self, user: &UserId, room_id: &RoomId) -> Result<bool, RoomError> {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let read = self.store().read(move |reader| is_joined(reader, &room_id, user.server_name()));
        read.await
    }

    /// The room has changed while the invited user's server signed, and does not take the invite:
    /// that server is told who has expelled the user, and asks whether its invite stands (row RS3).
    async fn tell_what_holds(&self, guard: &RoomGuard, target: &UserId) -> Result<(), RoomError> {
        let (room_id, user) = (guard.room_id().to_owned(), target.to_owned());
        let holds = self.store().read(move |reader| {
            if is_joined(reader, &room_id, user.server_name())? {
                return Ok(None);
            }
            Graph::of(reader, &room_id)?.current("m.room.member", user.as_str())
        });
        let expels = |event: &Pdu| {
            matches!(event.membership(), Some("leave" | "ban")) && event.sender() != target
        };
        let Some(event) = holds.await?.filter(expels) else { return Ok(()) };
        self.send_outside(guard, target.server_name(), event.event_id()).await
    }

    /// Queues an event of the room for a server that is not in it.
    pub(crate) async fn send_outside(
        &self,
        guard: &RoomGuard,
        server: &ServerName,
        event: &EventId,
    ) -> Result<(), RoomError> {
        let (to, id) = (server.to_owned(), event.to_owned());
        let mut batch = Batch::default();
        batch.at_position(move |position, batch| {
            batch.put::<tables::Outbox>(&(to, position), &OutboxItem::Pdu(id));
        });
        let mut placement = Placement::only(batch);
        placement.destinations.push(server.to_owned());
        self.commit(guard, placement).await?;
        Ok(())
    }

    /// Checks that the rules allow the invite, and gathers the state that goes with it.
    async fn check_and_describe(
        &self,
        room_id: &RoomId,
        event: &CheckedPdu,
    ) -> Result<Vec<Value>, RoomError> {
        let (room_id, event, ours) =
            (room_id.to_owned(), event.clone(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                if !is_joined(reader, &room_id, &ours)? {
                    return Err(RoomError::Forbidden("You are not in the room".into()));
                }
                // The rules look at the sender only; the invited user could not even decline.
                if graph.create()?.content().get("m.federate") == Some(&false.into()) {
                    return Err(AuthError::NotFederated.into());
                }
                check(&graph, &event)?;
                let state = invite_state(&graph, event.sender())?;
                Ok(state.iter().map(exeunt_core::wire::federation).collect())
            })
            .await
    }

    /// Has the target's server sign the invite. It may add its signature and nothing else. A
    /// server that knows only the older endpoint can be asked about versions 1 and 2.
    async fn ask_to_sign(
        &self,
        target: &UserId,
        event: &CheckedPdu,
        room_state: &[Value],
    ) -> Result<CheckedPdu, RoomError> {
        let server = target.server_name();
        let remote = |error| RoomError::Remote { server: server.to_owned(), error };
        let call = |api| self.call(server, Call::Invite { event, room_state, api });
        let answer = match call(SendApi::V2).await {
            Err(error) if error.says_no_such_endpoint() && event.version().id_is_claimed() => {
                // Wrapped as `[200, …]`.
                let wrapped = call(SendApi::V1).await;
                wrapped.map(|mut pair| pair.get_mut(1).map(Value::take).unwrap_or_default())
            }
            other => other,
        };
        let answer = answer.map_err(remote)?;
        let misbehaved = |what: &str| remote(RemoteError::Misbehaved(what.into()));
        let signed = answer
            .get("event")
            .and_then(Value::as_object)
            .and_then(|copy| Pdu::from_object(event.version(), copy.clone()).ok())
            .and_then(|copy| event.with_signatures_of(&copy, server))
            .ok_or_else(|| misbehaved("the answer is not the invite with a signature"))?;
        if !self.keys().is_signed_by(&signed, server).await? {
            return Err(misbehaved("its signature on the invite does not hold"));
        }
        Ok(signed)
    }
}

fn invite_intent(sender: &UserId, target: &UserId, mut content: Object) -> Intent {
    content.insert("membership".into(), "invite".into());
    Intent::state(sender.to_owned(), "m.room.member", target.as_str(), content)
}

/// The state that an invited user sees: the events of [`INVITE_STATE`] and the inviter's
/// membership.
pub fn invite_state(graph: &Graph<'_>, sender: &UserId) -> Result<Vec<Pdu>, RoomError> {
    let mut state = knock_state(graph)?;
    state.extend(graph.current("m.room.member", sender.as_str())?);
    Ok(state)
}

/// The same as stripped state.
pub(crate) fn shown_to_invited(
    graph: &Graph<'_>,
    sender: &UserId,
) -> Result<Vec<Object>, RoomError> {
    let state = invite_state(graph, sender)?;
    let state = state.iter().map(wire::federation).collect();
    Ok(clean_state(graph.version, &graph.room_id, &Value::Array(state)))
}

/// The state that a knocking user sees: the events of [`INVITE_STATE`].
pub fn knock_state(graph: &Graph<'_>) -> Result<Vec<Pdu>, RoomError> {
    let events = INVITE_STATE.iter().filter_map(|kind| graph.current(kind, "").transpose());
    events.collect()
}
