//! Events of our own users: built on the room's head, signed, placed.

use exeunt_acl::ServerAcl;
use exeunt_core::{Draft, Object, Pdu, Reference, RoomVersion, date_after};
use exeunt_state_res::auth_types;
use exeunt_store::tables;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};

use crate::{
    RoomError, Rooms,
    graph::{Graph, SERVER_ACL},
    locks::RoomGuard,
    place::{Source, next_position},
    relations,
};

/// What a local user wants to put into a room.
#[derive(Debug, Clone)]
pub struct Intent {
    pub sender: OwnedUserId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Object,
    pub redacts: Option<OwnedEventId>,
    /// The client's transaction: the same one gets the same event again.
    pub transaction: Option<ClientTransaction>,
    /// The date that it bears, in milliseconds since the epoch; `None`: that of now.
    pub ts: Option<u64>,
}

/// A client's transaction id, with what it is scoped to: device and endpoint (client-server API,
/// "Transaction identifiers").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTransaction {
    pub device: OwnedDeviceId,
    /// The path without the id: the same id at another one is another transaction.
    pub path: String,
    pub id: String,
}

impl ClientTransaction {
    /// Key of the row that finds the event again.
    pub(crate) fn key(&self, sender: &UserId) -> (OwnedUserId, OwnedDeviceId, String) {
        (sender.to_owned(), self.device.clone(), format!("{}\n{}", self.path, self.id))
    }
}

impl Intent {
    /// A message event.
    pub fn message(sender: OwnedUserId, kind: impl Into<String>, content: Object) -> Self {
        let kind = kind.into();
        Self { sender, kind, state_key: None, content, redacts: None, transaction: None, ts: None }
    }

    /// A state event.
    pub fn state(
        sender: OwnedUserId,
        kind: impl Into<String>,
        state_key: impl Into<String>,
        content: Object,
    ) -> Self {
        let state_key = Some(state_key.into());
        Self { state_key, ..Self::message(sender, kind, content) }
    }
}

impl Rooms {
    /// Builds, signs and places an event. Returns its id; of a transaction seen before, or a state
    /// event that is in force already, the id of the event that is there.
    pub async fn append(
        &self,
        room_id: &RoomId,
        intent: Intent,
    ) -> Result<OwnedEventId, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        self.append_locked(&guard, intent).await
    }

    pub(crate) async fn append_locked(
        &self,
        guard: &RoomGuard,
        intent: Intent,
    ) -> Result<OwnedEventId, RoomError> {
        let (event, signature) = match self.draft(guard, intent.clone()).await? {
            Drafted::Exists(event_id) => return Ok(event_id),
            Drafted::New(draft) => self.sign_event(draft)?,
        };
        let event_id = event.event_id().to_owned();
        let source = Source::Local { transaction: intent.transaction, signature: Some(signature) };
        self.place(guard, event, source, None).await?;
        Ok(event_id)
    }

    /// An event on the room's head, not signed and not placed.
    pub(crate) async fn draft_here(
        &self,
        guard: &RoomGuard,
        intent: Intent,
    ) -> Result<Draft, RoomError> {
        let (room_id, now) = (guard.room_id().to_owned(), self.now());
        self.inner
            .store
            .read(move |reader| draft_on_head(&Graph::of(reader, &room_id)?, intent, now))
            .await
    }

    async fn draft(&self, guard: &RoomGuard, intent: Intent) -> Result<Drafted, RoomError> {
        let (room_id, ours, now) =
            (guard.room_id().to_owned(), self.server_name().to_owned(), self.now());
        self.inner
            .store
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                let resident = crate::graph::is_joined(reader, &room_id, &ours)?;
                if !resident {
                    return Err(RoomError::Forbidden("You are not in the room".into()));
                }
                if let Some(event_id) = existing(&graph, &intent)? {
                    return Ok(Drafted::Exists(event_id));
                }
                check_redaction(&graph, &intent)?;
                relations::check_sent(&graph, &intent)?;
                check_acl(&intent.kind, intent.state_key.as_deref(), &intent.content, &ours)?;
                Ok(Drafted::New(draft_on_head(&graph, intent, now)?))
            })
            .await
    }
}

enum Drafted {
    Exists(OwnedEventId),
    New(Draft),
}

/// The event that the intent asks for, if it is there: by transaction, or as state in force.
fn existing(graph: &Graph<'_>, intent: &Intent) -> Result<Option<OwnedEventId>, RoomError> {
    if let Some(transaction) = &intent.transaction {
        let key = transaction.key(&intent.sender);
        if let Some(event_id) = graph.reader.get::<tables::ClientTransactions>(&key)? {
            return Ok(Some(event_id));
        }
    }
    let Some(state_key) = &intent.state_key else { return Ok(None) };
    let in_force = graph.current(&intent.kind, state_key)?;
    Ok(in_force
        .filter(|event| event.sender() == intent.sender && *event.content() == intent.content)
        .map(|event| event.event_id().to_owned()))
}

/// Whether a redaction takes with it what others need to judge an event, and all that rests on it: the
/// room version, the keys of a third-party invite, and, before versions 9 and 11, by what a member
/// was let in.
fn must_stay_whole(event: &Pdu) -> bool {
    let rests_on = |event: &Pdu| {
        let (kind, sender) = (event.kind(), event.sender());
        auth_types(event.version(), kind, sender, event.state_key(), event.content())
    };
    matches!(event.kind(), "m.room.create" | "m.room.third_party_invite")
        || rests_on(event) != rests_on(&event.redacted())
}

/// Users of ours redact their own events, or need the level. The rules for events let any user of
/// a server redact what others of that server sent, for a server knows them apart (client-server
/// API, "Redactions").
fn check_redaction(graph: &Graph<'_>, intent: &Intent) -> Result<(), RoomError> {
    let Some(target) = redaction_target(graph.version, intent) else { return Ok(()) };
    let acl = graph.current(SERVER_ACL, "")?;
    if acl.is_some_and(|acl| *acl.event_id() == target) {
        let text = "An empty ACL denies every server: send another one in place of this one";
        return Err(RoomError::Forbidden(text.into()));
    }
    let known = graph.event(&target)?;
    if known.as_ref().is_some_and(|known| must_stay_whole(&known.pdu)) {
        let text = "Nobody who joins later could check the room: this event cannot be redacted";
        return Err(RoomError::Forbidden(text.into()));
    }
    if known.is_some_and(|known| known.pdu.sender() == intent.sender)
        || graph.may_redact(&intent.sender)?
    {
        return Ok(());
    }
    Err(RoomError::Forbidden("You may not redact this event".into()))
}

/// What a redaction is about. Since room version 11 it is said in the content, which clients may
/// send like any other event's.
fn redaction_target(version: RoomVersion, intent: &Intent) -> Option<OwnedEventId> {
    let in_content = || {
        let counts = version.rules().redaction.content_field_redacts;
        let named = intent.content.get("redacts").filter(|_| counts)?;
        OwnedEventId::try_from(named.as_str()?).ok()
    };
    let is_redaction = intent.kind == "m.room.redaction";
    intent.redacts.clone().or_else(|| is_redaction.then(in_content).flatten())
}

/// Refuses an ACL that denies this server: it could not be mended from here.
pub(crate) fn check_acl(
    kind: &str,
    state_key: Option<&str>,
    content: &Object,
    ours: &ServerName,
) -> Result<(), RoomError> {
    let is_acl = kind == SERVER_ACL && state_key == Some("");
    if is_acl && !ServerAcl::compile(content).allows(ours) {
        return Err(RoomError::SelfLockout);
    }
    Ok(())
}

/// The draft of an event that follows the room's head.
pub(crate) fn draft_on_head(
    graph: &Graph<'_>,
    intent: Intent,
    now: u64,
) -> Result<Draft, RoomError> {
    let (prev_events, depth) = next_position(graph)?;
    let auth_events = auth_events(graph, &intent)?;
    let dates = auth_events.iter().map(Pdu::origin_server_ts);
    Ok(Draft {
        version: graph.version,
        room_id: Some(graph.room_id.clone()),
        sender: intent.sender,
        kind: intent.kind,
        state_key: intent.state_key,
        content: intent.content,
        redacts: intent.redacts,
        prev_events,
        origin_server_ts: intent.ts.unwrap_or_else(|| date_after(now, dates)),
        auth_events: auth_events.iter().map(Reference::from).collect(),
        depth,
    })
}

/// The auth events of an event on the head: one per state key that the rules ask for.
fn auth_events(graph: &Graph<'_>, intent: &Intent) -> Result<Vec<Pdu>, RoomError> {
    let Intent { sender, kind, state_key, content, .. } = intent;
    auth_types(graph.version, kind, sender, state_key.as_deref(), content)
        .iter()
        .filter_map(|key| graph.state_event(graph.room.state, key).transpose())
        .collect()
}
