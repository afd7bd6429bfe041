//! What a user has yet to read of a room. Specification: client-server API, "Receiving
//! notifications", "Threaded read receipts".

use std::collections::BTreeMap;

use exeunt_store::tables;
use ruma::OwnedEventId;

use super::own_rules::{OwnRules, Weight};
use crate::{
    RoomError,
    ephemeral::receipts::{Receipts, known_order},
    views::access::RoomView,
};

/// Events that count as unread in one room at most; of more the newest are looked at.
pub const MAX_UNREAD: usize = 1_000;

const MAIN: &str = "main";

/// Unread events, the main timeline and each thread apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    pub main: Counts,
    /// By root, only those with unread events.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub notifications: u64,
    pub highlights: u64,
}

impl Unread {
    /// The timeline and all threads together.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, thread| Counts {
            notifications: sum.notifications + thread.notifications,
            highlights: sum.highlights + thread.highlights,
        })
    }
}

/// Up to where a user has read a room, as orders of the timeline.
#[derive(Default)]
pub(super) struct Marks {
    everywhere: Option<i64>,
    /// By thread; the main timeline is one of them.
    threads: BTreeMap<String, i64>,
    /// Stream position of the last change.
    pub position: u64,
}

impl RoomView<'_> {
    /// What the user's receipts say; public and private ones count alike.
    pub(super) fn marks(&self, receipts: &Receipts) -> Result<Marks, RoomError> {
        let mut marks = Marks::default();
        for (_, receipt) in receipts.iter().filter(|(reader, _)| *reader == self.viewer.user) {
            marks.position = marks.position.max(receipt.position);
            let Some(order) = known_order(self.graph.reader, receipt)? else { continue };
            match &receipt.thread_id {
                None => marks.everywhere = marks.everywhere.max(Some(order)),
                Some(thread) => {
                    let known = marks.threads.entry(thread.clone()).or_insert(order);
                    *known = order.max(*known);
                }
            }
        }
        Ok(marks)
    }

    /// The events that came since the user joined, beyond the marks, and not by those whom the
    /// user ignores.
    pub(super) fn unread(&self, marks: &Marks, own: &OwnRules<'_>) -> Result<Unread, RoomError> {
        let mut unread = Unread::default();
        let room_id = &self.graph.room_id;
        let began = self.stay.map_or(0, |stay| stay.began.cast_signed());
        let read = marks.everywhere.unwrap_or(0).max(began);
        let rows = self.graph.reader.scan::<tables::Notable>(room_id.clone());
        let rows = rows.after((room_id.clone(), read)).limit(MAX_UNREAD).iter_back();
        let user = &self.viewer.user;
        let mut rules = own.of_room(self)?;
        for row in rows {
            let ((_, order), event) = row?;
            let thread = event.thread.as_ref().map_or(MAIN, |root| root.as_str());
            let is_read = marks.threads.get(thread).is_some_and(|read| order <= *read);
            if is_read || event.sender == *user || self.ignores(&event.sender)? {
                continue;
            }
            let weight = match &mut rules {
                Some(rules) => rules.weigh(order, &event)?,
                None => Weight::predefined(&event, user),
            };
            if !weight.notifies {
                continue;
            }
            let counts = match event.thread {
                None => &mut unread.main,
                Some(root) => unread.threads.entry(root).or_default(),
            };
            counts.notifications += 1;
            counts.highlights += u64::from(weight.highlights);
        }
        if let Some(rules) = rules {
            rules.remember();
        }
        Ok(unread)
    }
}
