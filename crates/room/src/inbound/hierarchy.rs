//! `GET hierarchy`: a room of ours and its children, as far as a server could peek or join.

use serde_json::{Value, json};

use super::{Admitted, gate::resident};
use crate::{
    RoomError, RoomSummary, Rooms,
    graph::{Graph, is_joined},
    spaces::{HierarchyRoom, children_of, is_shown_to_server},
};

/// Most children of one space that are described. The others have to be asked about one by one.
pub const MAX_CHILDREN_LISTED: usize = 100;

impl Rooms {
    /// A room and those of its children that we know; `NotFound` where the server could not peek
    /// or join, as where there is no such room.
    pub async fn hierarchy_for_server(
        &self,
        entry: &Admitted,
        suggested_only: bool,
    ) -> Result<Value, RoomError> {
        let (entry, ours) = (entry.clone(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let graph = resident(reader, entry.room_id(), &ours)?;
                let shown = is_shown_to_server(&graph, entry.origin(), &ours)?;
                let summary = shown.ok_or_else(|| RoomError::NotFound("Unknown room".into()))?;
                let is_space = summary.is_space();
                let mut below = if is_space { children_of(&graph)? } else { Vec::new() };
                below.retain(|child| child.suggested || !suggested_only);
                let (mut children, mut inaccessible): (Vec<RoomSummary>, Vec<_>) =
                    Default::default();
                for child in below.iter().take(MAX_CHILDREN_LISTED) {
                    // Others may know those that we do not.
                    if !is_joined(reader, &child.room_id, &ours)? {
                        continue;
                    }
                    let graph = Graph::of(reader, &child.room_id)?;
                    match is_shown_to_server(&graph, entry.origin(), &ours)? {
                        Some(summary) => children.push(summary),
                        None => inaccessible.push(child.room_id.clone()),
                    }
                }
                let children_state = below.into_iter().map(|child| child.event).collect();
                Ok(json!({
                    "room": HierarchyRoom { summary, children_state },
                    "children": children,
                    "inaccessible_children": inaccessible,
                }))
            })
            .await
    }
}
