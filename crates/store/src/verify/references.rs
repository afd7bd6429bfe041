//! What rows refer to is there, state trees are whole, and positions are not ahead of the counter.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedRoomId};

use super::Report;
use crate::records::{OutboxItem, Root};
use crate::snapshot::{self, Node};
use crate::table::{decode_key, decode_value, display_key};
use crate::tables::{
    AccountData, AuthChildren, Children, Denied, EventTimes, Events, MembershipLog, Memberships,
    OlderHeads, Outbox, Pending, Purges, Redactions, Relations, RoomStates, Rooms, SigningJournal,
    StateNodes, Timeline,
};
use crate::{Reader, StoreError, Table};

pub(super) fn check(reader: &Reader, report: &mut Report) -> Result<(), StoreError> {
    let last = reader.position()?;
    let (purged, whole) = (BTreeSet::new(), BTreeSet::new());
    let mut walk = Walk { reader, report, last, purged, whole };
    walk.events()?;
    walk.rooms()?;
    walk.memberships()?;
    walk.positions()?;
    walk.unreferenced()
}

struct Walk<'a> {
    reader: &'a Reader<'a>,
    report: &'a mut Report,
    /// The last stream position.
    last: u64,
    /// Rooms whose purge was cut off: their states may be gone.
    purged: BTreeSet<OwnedRoomId>,
    /// State nodes already walked: trees share most of theirs.
    whole: BTreeSet<[u8; 16]>,
}

/// A row of a table: whom a finding is about.
struct Row<'a> {
    table: &'static str,
    key: &'a [u8],
}

impl Walk<'_> {
    fn events(&mut self) -> Result<(), StoreError> {
        self.each::<Purges>(|walk, _, room, ()| {
            walk.purged.insert(room);
            Ok(())
        })?;
        self.each::<Events>(|walk, row, _, event| {
            let states = event.states.filter(|_| !walk.purged.contains(&event.room_id));
            let roots = states.map(|states| [states.before, states.after]);
            roots.into_iter().flatten().try_for_each(|root| walk.tree(row, root))
        })?;
        self.each::<Children>(|walk, row, (_, _, child), ()| walk.event(row, &child))?;
        self.each::<AuthChildren>(|walk, row, (_, child), ()| walk.event(row, &child))?;
        self.each::<Redactions>(|walk, row, (_, _, redaction), _| walk.event(row, &redaction))?;
        self.each::<Denied>(|walk, row, _, (_, event)| walk.event(row, &event))?;
        self.each::<Timeline>(|walk, row, _, event| walk.event(row, &event))?;
        self.each::<Relations>(|walk, row, (room, ..), child| {
            let head = walk.reader.get::<Rooms>(&room);
            if head.is_ok_and(|head| head.is_some_and(|head| !head.has_relations)) {
                walk.problem(row, format!("{room} has relations, and says that it has none"));
            }
            walk.event(row, &child.event_id)
        })?;
        self.each::<EventTimes>(|walk, row, (room, _, order), ()| {
            if !walk.reader.contains::<Timeline>(&(room, order))? {
                walk.problem(row, format!("no event has the order {order}"));
            }
            Ok(())
        })
    }

    fn rooms(&mut self) -> Result<(), StoreError> {
        self.each::<Rooms>(|walk, row, room_id, room| {
            walk.event(row, &room.create_event)?;
            for event in &room.extremities {
                walk.event(row, event)?;
            }
            walk.tree(row, room.state)?;
            walk.position(row, room.position);
            let at = (room_id.clone(), room.state_since);
            let since = walk.reader.get::<RoomStates>(&at);
            let is_noted = room.state_since > 0 && !walk.purged.contains(&room_id);
            if is_noted && since.is_ok_and(|root| root != Some(room.state)) {
                walk.problem(row, format!("its state is not that of {}", room.state_since));
            }
            walk.first_order(row, room_id, room.first_order)
        })?;
        self.each::<OlderHeads>(|walk, row, (_, _, event), ()| walk.event(row, &event))?;
        self.each::<RoomStates>(|walk, row, (room_id, position), root| {
            walk.position(row, position);
            if walk.purged.contains(&room_id) {
                return Ok(());
            }
            walk.tree(row, root)
        })
    }

    fn memberships(&mut self) -> Result<(), StoreError> {
        self.each::<Memberships>(|walk, row, (user, room), membership| {
            walk.position(row, membership.position);
            if membership.local_event.is_some() {
                return Ok(());
            }
            match walk.reader.get::<Pending>(&(user, room)) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => walk.event(row, &membership.event_id),
                Err(error) => unreadable(error),
            }
        })
    }

    fn positions(&mut self) -> Result<(), StoreError> {
        self.each::<Outbox>(|walk, row, (_, position), item| {
            walk.position(row, position);
            match item {
                OutboxItem::Pdu(event) => walk.event(row, &event),
                OutboxItem::Edu(_) => Ok(()),
            }
        })?;
        self.each::<MembershipLog>(|walk, row, (_, _, position), _| {
            walk.position(row, position);
            Ok(())
        })?;
        self.each::<SigningJournal>(|walk, row, position, _| {
            walk.position(row, position);
            Ok(())
        })?;
        self.each::<AccountData>(|walk, row, _, data| {
            walk.position(row, data.position);
            Ok(())
        })
    }

    fn unreferenced(&mut self) -> Result<(), StoreError> {
        self.each::<StateNodes>(|walk, _, id, _| {
            walk.report.unreferenced += u64::from(!walk.whole.contains(&id));
            Ok(())
        })
    }

    /// Calls `check` for every row that can be read; the others are in the report already.
    fn each<T: Table>(
        &mut self,
        mut check: impl FnMut(&mut Self, &Row<'_>, T::Key, T::Value) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reader = self.reader;
        for row in reader.raw::<T>() {
            let (key, value) = row?;
            if let (Ok(k), Ok(v)) = (decode_key::<T>(&key), decode_value::<T>(&value)) {
                check(self, &Row { table: T::NAME, key: &key }, k, v)?;
            }
        }
        Ok(())
    }

    fn problem(&mut self, row: &Row<'_>, problem: String) {
        self.report.add(row.table, display_key(row.key), problem);
    }

    fn event(&mut self, row: &Row<'_>, id: &OwnedEventId) -> Result<(), StoreError> {
        if !self.reader.contains::<Events>(id)? {
            self.problem(row, format!("event {id} is not there"));
        }
        Ok(())
    }

    fn position(&mut self, row: &Row<'_>, position: u64) {
        let last = self.last;
        if position > last {
            self.problem(row, format!("position {position} is after the last one, {last}"));
        }
    }

    /// All nodes of a state tree are there and are what their ids say, and so are its events.
    fn tree(&mut self, row: &Row<'_>, root: Root) -> Result<(), StoreError> {
        let mut open = vec![root];
        while let Some(root) = open.pop() {
            if root == Root::EMPTY || !self.whole.insert(root.0) {
                continue;
            }
            let node = match snapshot::node(self.reader, None, root, 0) {
                Ok(node) => node,
                Err(StoreError::Corrupt { key, .. }) => {
                    self.problem(row, format!("state node {key} is not there or unreadable"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if node.id() != root.0 {
                self.problem(row, format!("state node {root} has other content"));
            }
            match &*node {
                Node::Leaf(entries) => {
                    for (_, _, event) in entries {
                        self.event(row, event)?;
                    }
                }
                Node::Branch(_, children) => open.extend(children.iter().flatten()),
            }
        }
        Ok(())
    }

    /// Backfill counts down from the room's first order: no row may be below it.
    fn first_order(
        &mut self,
        row: &Row<'_>,
        room_id: OwnedRoomId,
        first: i64,
    ) -> Result<(), StoreError> {
        match self.reader.scan::<Timeline>(room_id).limit(1).keys() {
            Ok(keys) => {
                if let Some((_, order)) = keys.into_iter().find(|(_, order)| *order < first) {
                    self.problem(row, format!("the timeline begins at {order}, before {first}"));
                }
                Ok(())
            }
            Err(error) => unreadable(error),
        }
    }
}

/// A row that cannot be read is in the report already.
fn unreadable(error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Corrupt { .. } => Ok(()),
        error => Err(error),
    }
}
