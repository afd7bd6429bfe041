//! Mark and sweep of state nodes (decision 0001).

use std::collections::HashSet;

use crate::snapshot::{self, Node, Root};
use crate::tables::{Events, RoomStates, Rooms, StateNodes};
use crate::{Batch, Reader, Store, StoreError};

/// Nodes that are looked at between two commits.
const PAGE: usize = 10_000;

/// What a collection found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    pub kept: u64,
    pub deleted: u64,
}

/// Deletes the state nodes that no event and no room leads to. Nobody else may write meanwhile: a
/// state can be in the store before the event that refers to it. In memory are the ids of the nodes
/// that stay, 16 bytes each. Deletes nothing if a row that may refer to nodes cannot be read, or a
/// node that is referred to is not there; and after a crash runs again.
pub async fn collect_state(store: &Store) -> Result<Collected, StoreError> {
    let marked = store.read(mark).await?;
    let (mut after, mut collected) = (None, Collected::default());
    loop {
        let reader = store.reader();
        let mut scan = reader.scan::<StateNodes>(()).limit(PAGE);
        if let Some(last) = after {
            scan = scan.after(last);
        }
        let page = scan.keys()?;
        drop(reader);
        let mut batch = Batch::default();
        for id in page.iter().filter(|id| !marked.contains(*id)) {
            batch.delete::<StateNodes>(id);
            collected.deleted += 1;
        }
        store.commit(batch).await?;
        after = page.last().copied();
        if page.len() < PAGE {
            collected.kept = marked.len() as u64;
            return Ok(collected);
        }
    }
}

/// The nodes that events and rooms lead to.
fn mark(reader: &Reader<'_>) -> Result<HashSet<[u8; 16]>, StoreError> {
    let mut marked = HashSet::new();
    for row in reader.scan::<Events>(()).iter() {
        if let Some(states) = row?.1.states {
            mark_tree(reader, states.before, &mut marked)?;
            mark_tree(reader, states.after, &mut marked)?;
        }
    }
    for row in reader.scan::<Rooms>(()).iter() {
        mark_tree(reader, row?.1.state, &mut marked)?;
    }
    for row in reader.scan::<RoomStates>(()).iter() {
        mark_tree(reader, row?.1, &mut marked)?;
    }
    Ok(marked)
}

fn mark_tree(
    reader: &Reader<'_>,
    root: Root,
    marked: &mut HashSet<[u8; 16]>,
) -> Result<(), StoreError> {
    let mut open = vec![root];
    while let Some(root) = open.pop() {
        if root == Root::EMPTY || !marked.insert(root.0) {
            continue;
        }
        if let Node::Branch(_, children) = &*snapshot::node(reader, None, root, 0)? {
            open.extend(children.iter().flatten());
        }
    }
    Ok(())
}
