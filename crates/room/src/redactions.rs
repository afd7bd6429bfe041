//! Redactions take the content of their targets, whichever comes first, and by whatever way. Since
//! room version 3 clients are told of them once both are here, and only of those that count; those
//! of history are shown as they come.
//!
//! Specification: rooms/v3, "Handling redactions".

use exeunt_core::Pdu;
use exeunt_state_res::PowerLevels;
use exeunt_store::{
    Batch,
    records::{EventRecord, RedactionRecord},
    tables,
};
use ruma::{OwnedEventId, UserId};

use crate::{
    RoomError,
    graph::{Graph, Known},
    rows::raw_json,
    shown::Shown,
};

/// Applies an accepted redaction to its target, or has it wait for it. Whether the sender may
/// redact others' events is decided by current state, now: a promotion later changes nothing.
/// Returns whether clients are to be told of the event: of a redaction once it counts. True of
/// events that redact nothing.
pub(crate) fn apply(graph: &Graph<'_>, redaction: &Pdu) -> Result<bool, RoomError> {
    let Some(target) = redaction.redacts() else { return Ok(true) };
    let is_entitled = is_authorised(graph) || graph.may_redact(redaction.sender())?;
    let counts = apply_to(graph, redaction, target, is_entitled)?;
    Ok(counts || is_authorised(graph))
}

/// The same for an accepted redaction in history, where the state is not known: its auth events
/// say what its sender may do.
pub(crate) fn apply_in_history(graph: &Graph<'_>, redaction: &Pdu) -> Result<(), RoomError> {
    let Some(target) = redaction.redacts() else { return Ok(()) };
    let is_entitled = is_authorised(graph) || {
        let mut levels = None;
        for id in redaction.auth_events() {
            let known = graph.event(id)?.map(|known| known.pdu);
            levels = levels.or(known.filter(|pdu| pdu.is_state("m.room.power_levels", "")));
        }
        let levels = PowerLevels::from_state(graph.version, &graph.create()?, levels.as_ref());
        allowed_by(&levels, redaction.sender())
    };
    apply_to(graph, redaction, target, is_entitled)?;
    Ok(())
}

/// The redaction that waits for an event, if there is one.
pub(crate) fn waiting_for(
    graph: &Graph<'_>,
    event: &Pdu,
) -> Result<Option<OwnedEventId>, RoomError> {
    all_waiting_for(graph, event).next().transpose()
}

fn all_waiting_for<'g>(
    graph: &'g Graph<'_>,
    event: &'g Pdu,
) -> impl Iterator<Item = Result<OwnedEventId, RoomError>> + use<'g> {
    let target = (graph.room_id.clone(), event.event_id().to_owned());
    let rows = graph.reader.scan::<tables::Redactions>(target);
    rows.iter().filter_map(|row| match row {
        Ok(((_, _, redaction), told)) => {
            let counts = told.is_entitled || told.server == event.origin();
            counts.then_some(Ok(redaction))
        }
        Err(error) => Some(Err(error.into())),
    })
}

/// The redactions that clients have yet to be told of, and that the event makes count.
pub(crate) fn held_for(graph: &Graph<'_>, event: &Pdu) -> Result<Vec<Known>, RoomError> {
    let mut held = Vec::new();
    for id in all_waiting_for(graph, event) {
        let known = graph.event(&id?)?;
        held.extend(known.filter(|Known { record, .. }| {
            record.order.is_none() && record.states.is_some() && record.verdict.is_accepted()
        }));
    }
    Ok(held)
}

/// Gives held redactions their places, right before the event of that order. It is redacted
/// already: who reads both in this order has not seen what it was.
pub(crate) fn show(held: Vec<Known>, batch: &mut Batch, order: i64) {
    for (order, Known { pdu, record, .. }) in (1..).map(|back| order - back).zip(held) {
        Shown::new(&pdu).put(batch, order);
        let record = EventRecord { order: Some(order), ..(*record).clone() };
        batch.put::<tables::Events>(&pdu.event_id().to_owned(), &record);
    }
}

/// Whether power levels let a user redact others' events.
pub(crate) fn allowed_by(levels: &PowerLevels, user: &UserId) -> bool {
    // A malformed level (before room version 10) is no entitlement.
    match (levels.user(user), levels.redact()) {
        (Ok(level), Ok(needed)) => level >= needed,
        _ => false,
    }
}

/// In versions 1 and 2 the authorisation rules have allowed what is accepted.
fn is_authorised(graph: &Graph<'_>) -> bool {
    graph.version.rules().authorization.special_case_room_redaction
}

/// Whether the redaction counts: its target is known, and its sender may redact it.
fn apply_to(
    graph: &Graph<'_>,
    redaction: &Pdu,
    target: OwnedEventId,
    is_entitled: bool,
) -> Result<bool, RoomError> {
    let Some(Known { pdu, record, .. }) = graph.event(&target)? else {
        let key = (graph.room_id.clone(), target, redaction.event_id().to_owned());
        let record = RedactionRecord { server: redaction.origin().to_owned(), is_entitled };
        graph.batch().put::<tables::Redactions>(&key, &record);
        return Ok(false);
    };
    let counts = is_entitled || pdu.origin() == redaction.origin();
    if record.redacted_because.is_some() || !counts {
        return Ok(counts);
    }
    if let Some(order) = record.order {
        Shown::new(&pdu).redact(&mut graph.batch(), order);
        graph.batch().delete::<tables::Notable>(&(graph.room_id.clone(), order));
    }
    let redacted = pdu.redacted();
    let record = EventRecord {
        json: raw_json(&redacted),
        redacted_because: Some(redaction.event_id().to_owned()),
        ..(*record).clone()
    };
    graph.add(&redacted, record)?;
    Ok(true)
}
