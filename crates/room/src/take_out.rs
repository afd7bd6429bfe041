//! State events that turn out to be rejected. Another server told of them, each was judged by its
//! auth events alone (decision 0015), and now that one has its place, what is before it refuses it.

use exeunt_store::records::{EventRecord, Root, States};

use crate::{
    RoomError,
    change::{Change, Effects, MAX_RESOLVED_HEADS, write_head},
    graph::Known,
};

impl Change<'_> {
    /// Takes the event, rejected by the state `before` it, out of current state and out of the
    /// states of the heads, which what comes next is built upon. The key has what it had before
    /// the event. Where the event is still in older states, resolution leaves it out.
    pub fn take_out(&self, before: Root) -> Result<Effects, RoomError> {
        let (graph, mut effects) = (self.graph, Effects::default());
        let Some(key) = self.event.key() else { return Ok(effects) };
        let instead = [(key.clone(), graph.state_id(before, &key)?)];
        let holds = |root| -> Result<bool, RoomError> {
            Ok(graph.state_id(root, &key)?.as_deref() == Some(self.event.event_id()))
        };
        let mut room = graph.room.clone();
        for id in &room.extremities {
            let Known { pdu, record, .. } = graph.event_here(id)?;
            if let Some(states) = record.states
                && holds(states.after)?
            {
                let after = graph.apply_all(states.after, &instead)?;
                let states = Some(States { after, ..states });
                graph.add(&pdu, EventRecord { states, ..EventRecord::clone(&record) })?;
            }
        }
        if !holds(room.state)? {
            return Ok(effects);
        }
        let state = match room.extremities.len() < MAX_RESOLVED_HEADS {
            true => graph.resolve(self.states_after(&room.extremities)?)?,
            false => graph.apply_all(room.state, &instead)?,
        };
        self.move_to(&mut room, state, &mut effects)?;
        write_head(&mut graph.batch(), &graph.room_id, room);
        Ok(effects)
    }
}
