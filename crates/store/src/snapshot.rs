//! Room state as a persistent tree: versions share what they have in common.
//!
//! A 16-way trie over the SHA-256 of (type, state key). Nodes are addressed by the hash of their
//! content and their shape depends on the entries alone, so equal states have equal roots, a change
//! writes one path, and the difference of two states costs what differs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::vec;

use exeunt_core::{StateKey, StateMap};
use ring::digest::{Context, SHA256};
use ruma::OwnedEventId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::tables::StateNodes;
use crate::{Batch, Reader, StoreError, Table};

/// Most entries of a leaf; one more makes it a branch.
const MAX_LEAF: usize = 16;
/// Hex digits in a path. Two entries that share all of them cannot be made.
const MAX_DEPTH: usize = 64;

type NodeId = [u8; 16];
type Path = [u8; 32];

/// Address of a state tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(pub [u8; 16]);

impl Root {
    /// The state without entries.
    pub const EMPTY: Root = Root([0; 16]);

    fn present(self) -> Option<Root> {
        Some(self).filter(|root| *root != Root::EMPTY)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for Root {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Hex)
    }
}

struct Hex;

impl de::Visitor<'_> for Hex {
    type Value = Root;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a state root of 32 hex digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Root, E> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let number =
            text.bytes().try_fold(0, |n: u128, byte| Some(n << 4 | u128::from(digit(byte)?)));
        match number.filter(|_| text.len() == 32) {
            Some(number) => Ok(Root(number.to_be_bytes())),
            None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// A node of a state tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// All entries below, sorted: type, state key, event.
    #[serde(rename = "l")]
    Leaf(Vec<(String, String, OwnedEventId)>),
    /// The number of entries below, and the children by the path's next hex digit.
    #[serde(rename = "b")]
    Branch(usize, Box<[Option<Root>; 16]>),
}

/// One difference between two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub key: StateKey,
    pub before: Option<OwnedEventId>,
    pub after: Option<OwnedEventId>,
}

/// Where nodes are read: in a snapshot of the store, and before that in a batch being written.
#[derive(Clone, Copy)]
pub struct Nodes<'a> {
    reader: &'a Reader<'a>,
    batch: Option<&'a Batch>,
}

impl<'a> From<&'a Reader<'_>> for Nodes<'a> {
    fn from(reader: &'a Reader<'_>) -> Self {
        Self { reader, batch: None }
    }
}

impl<'a> From<(&'a Reader<'_>, &'a Batch)> for Nodes<'a> {
    fn from((reader, batch): (&'a Reader<'_>, &'a Batch)) -> Self {
        Self { reader, batch: Some(batch) }
    }
}

/// The event at a key.
pub fn get<'a>(
    nodes: impl Into<Nodes<'a>>,
    root: Root,
    key: &StateKey,
) -> Result<Option<OwnedEventId>, StoreError> {
    let Nodes { reader, batch } = nodes.into();
    let path = path_of(key);
    let mut at = root.present();
    let mut depth = 0;
    while let Some(root) = at {
        match &*node(reader, batch, root, depth)? {
            Node::Leaf(entries) => {
                let found = entries.iter().find(|(k, s, _)| *k == key.kind && *s == key.key);
                return Ok(found.map(|(_, _, event)| event.clone()));
            }
            Node::Branch(_, children) => at = children[digit(&path, depth)],
        }
        depth += 1;
    }
    Ok(None)
}

/// The whole state.
pub fn load<'a>(
    nodes: impl Into<Nodes<'a>>,
    root: Root,
) -> Result<StateMap<OwnedEventId>, StoreError> {
    let Nodes { reader, batch } = nodes.into();
    let mut map = StateMap::new();
    if let Some(root) = root.present() {
        collect(reader, batch, root, 0, &mut map)?;
    }
    Ok(map)
}

/// A walk over a state, entry by entry, that keeps no more than a leaf and the branches above it.
pub struct Walk {
    /// Nodes to be read, with their depths.
    nodes: Vec<(Root, usize)>,
    entries: vec::IntoIter<(String, String, OwnedEventId)>,
}

impl Walk {
    pub fn new(root: Root) -> Self {
        let nodes = root.present().map(|root| (root, 0)).into_iter().collect();
        Self { nodes, entries: Vec::new().into_iter() }
    }

    /// The next entry, `None` after the last one.
    pub fn next<'a>(
        &mut self,
        nodes: impl Into<Nodes<'a>>,
    ) -> Result<Option<(StateKey, OwnedEventId)>, StoreError> {
        let Nodes { reader, batch } = nodes.into();
        loop {
            if let Some((kind, key, event)) = self.entries.next() {
                return Ok(Some((StateKey::new(kind, key), event)));
            }
            let Some((root, depth)) = self.nodes.pop() else { return Ok(None) };
            match &*node(reader, batch, root, depth)? {
                Node::Leaf(entries) => self.entries = entries.clone().into_iter(),
                Node::Branch(_, children) => {
                    let children = children.iter().rev().flatten();
                    self.nodes.extend(children.map(|child| (*child, depth + 1)));
                }
            }
        }
    }
}

/// Writes a whole state.
pub fn from_map(map: &StateMap<OwnedEventId>, batch: &mut Batch) -> Root {
    let entries = map.iter().map(|(key, event)| (path_of(key), (key.clone(), event.clone())));
    build(entries.collect(), 0, batch).unwrap_or(Root::EMPTY)
}

/// Writes a state that differs from another by `changes`; `None` removes an entry. Of changes to
/// the same key the last one counts. Sees the nodes that `batch` already holds.
pub fn apply(
    reader: &Reader,
    root: Root,
    changes: &[(StateKey, Option<OwnedEventId>)],
    batch: &mut Batch,
) -> Result<Root, StoreError> {
    let changes: Changes =
        changes.iter().map(|(key, event)| (path_of(key), (key.clone(), event.clone()))).collect();
    let (changed, _) = update(reader, root.present(), changes, 0, batch)?;
    Ok(changed.unwrap_or(Root::EMPTY))
}

/// What makes `b` of `a`, in the order of keys. Shared subtrees are not read.
pub fn diff<'a>(
    nodes: impl Into<Nodes<'a>>,
    a: Root,
    b: Root,
) -> Result<Vec<StateChange>, StoreError> {
    let Nodes { reader, batch } = nodes.into();
    let mut before = StateMap::new();
    let mut after = StateMap::new();
    compare(reader, batch, a.present(), b.present(), 0, &mut before, &mut after)?;
    let mut changes = BTreeMap::new();
    for (key, event) in before {
        changes.insert(key, (Some(event), None));
    }
    for (key, event) in after {
        changes.entry(key).or_insert((None, None)).1 = Some(event);
    }
    let changes = changes.into_iter().filter(|(_, (before, after))| before != after);
    Ok(changes.map(|(key, (before, after))| StateChange { key, before, after }).collect())
}

/// Entries by their path.
type Entries = BTreeMap<Path, (StateKey, OwnedEventId)>;
type Changes = BTreeMap<Path, (StateKey, Option<OwnedEventId>)>;

/// The type's length goes first, so that no two keys have the same path.
fn path_of(key: &StateKey) -> Path {
    let mut context = Context::new(&SHA256);
    hash_text(&mut context, &key.kind);
    context.update(key.key.as_bytes());
    sha256(context)
}

fn hash_text(context: &mut Context, text: &str) {
    context.update(&(text.len() as u64).to_be_bytes());
    context.update(text.as_bytes());
}

fn sha256(context: Context) -> [u8; 32] {
    let digest = context.finish();
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

fn digit(path: &Path, depth: usize) -> usize {
    let byte = path[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        let mut context = Context::new(&SHA256);
        match self {
            Node::Leaf(entries) => {
                context.update(b"l");
                for (kind, key, event) in entries {
                    hash_text(&mut context, kind);
                    hash_text(&mut context, key);
                    hash_text(&mut context, event.as_str());
                }
            }
            Node::Branch(_, children) => {
                context.update(b"b");
                for child in children.iter() {
                    context.update(&child.unwrap_or(Root::EMPTY).0);
                }
            }
        }
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(context)[..16]);
        id
    }

    fn write(&self, batch: &mut Batch) -> Root {
        let id = self.id();
        batch.put::<StateNodes>(&id, self);
        Root(id)
    }
}

/// Reads a node. One that is referred to and not there is corruption, never an empty state.
pub(crate) fn node(
    reader: &Reader,
    batch: Option<&Batch>,
    root: Root,
    depth: usize,
) -> Result<Arc<Node>, StoreError> {
    let known = match batch {
        Some(batch) => batch.pending::<StateNodes>(&root.0)?.flatten(),
        None => None,
    };
    let known = match known {
        Some(node) => Some(Arc::new(node)),
        None => reader.node(&root.0)?,
    };
    known
        .filter(|_| depth <= MAX_DEPTH)
        .ok_or_else(|| StoreError::Corrupt { table: StateNodes::NAME, key: root.to_string() })
}

fn collect(
    reader: &Reader,
    batch: Option<&Batch>,
    root: Root,
    depth: usize,
    into: &mut StateMap<OwnedEventId>,
) -> Result<(), StoreError> {
    match &*node(reader, batch, root, depth)? {
        Node::Leaf(entries) => {
            let entries = entries.iter();
            into.extend(entries.map(|(k, s, event)| (StateKey::new(k, s), event.clone())));
        }
        Node::Branch(_, children) => {
            for &child in children.iter().flatten() {
                collect(reader, batch, child, depth + 1, into)?;
            }
        }
    }
    Ok(())
}

/// Writes the tree of these entries.
fn build(entries: Entries, depth: usize, batch: &mut Batch) -> Option<Root> {
    if entries.is_empty() {
        return None;
    }
    if entries.len() <= MAX_LEAF || depth == MAX_DEPTH {
        let mut entries: Vec<_> =
            entries.into_values().map(|(key, event)| (key.kind, key.key, event)).collect();
        entries.sort();
        return Some(Node::Leaf(entries).write(batch));
    }
    let count = entries.len();
    let mut parts: [Entries; 16] = Default::default();
    for (path, entry) in entries {
        parts[digit(&path, depth)].insert(path, entry);
    }
    let children = parts.map(|part| build(part, depth + 1, batch));
    Some(Node::Branch(count, Box::new(children)).write(batch))
}

/// The tree with the changes made, and by how many entries it has grown.
fn update(
    reader: &Reader,
    root: Option<Root>,
    changes: Changes,
    depth: usize,
    batch: &mut Batch,
) -> Result<(Option<Root>, isize), StoreError> {
    let old = match root {
        None => Node::Leaf(Vec::new()),
        Some(root) => Arc::unwrap_or_clone(node(reader, Some(batch), root, depth)?),
    };
    let (count, mut children) = match old {
        Node::Branch(count, children) => (count, children),
        Node::Leaf(leaf) => {
            let old = leaf.len();
            let leaf = leaf.into_iter().map(|(kind, key, event)| (StateKey::new(kind, key), event));
            let mut entries: Entries = leaf.map(|entry| (path_of(&entry.0), entry)).collect();
            change_entries(&mut entries, changes);
            let growth = entries.len().cast_signed() - old.cast_signed();
            return Ok((build(entries, depth, batch), growth));
        }
    };
    let mut parts: [Changes; 16] = Default::default();
    for (path, change) in changes {
        parts[digit(&path, depth)].insert(path, change);
    }
    let mut growth = 0;
    for (child, part) in children.iter_mut().zip(parts).filter(|(_, part)| !part.is_empty()) {
        let (changed, by) = update(reader, *child, part, depth + 1, batch)?;
        *child = changed;
        growth += by;
    }
    let count = count.saturating_add_signed(growth);
    if count > MAX_LEAF {
        return Ok((Some(Node::Branch(count, children).write(batch)), growth));
    }
    let mut map = StateMap::new();
    for child in children.into_iter().flatten() {
        collect(reader, Some(batch), child, depth + 1, &mut map)?;
    }
    let entries = map.into_iter().map(|(key, event)| (path_of(&key), (key, event)));
    Ok((build(entries.collect(), depth, batch), growth))
}

fn change_entries(entries: &mut Entries, changes: Changes) {
    for (path, (key, event)) in changes {
        match event {
            Some(event) => {
                entries.insert(path, (key, event));
            }
            None => {
                entries.remove(&path);
            }
        }
    }
}

/// Collects the entries of both trees, without what is in shared subtrees.
fn compare(
    reader: &Reader,
    batch: Option<&Batch>,
    a: Option<Root>,
    b: Option<Root>,
    depth: usize,
    before: &mut StateMap<OwnedEventId>,
    after: &mut StateMap<OwnedEventId>,
) -> Result<(), StoreError> {
    let (a, b) = match (a, b) {
        (a, b) if a == b => return Ok(()),
        (Some(a), Some(b)) => (a, b),
        (a, b) => {
            if let Some(a) = a {
                collect(reader, batch, a, depth, before)?;
            }
            if let Some(b) = b {
                collect(reader, batch, b, depth, after)?;
            }
            return Ok(());
        }
    };
    match (&*node(reader, batch, a, depth)?, &*node(reader, batch, b, depth)?) {
        (Node::Branch(_, x), Node::Branch(_, y)) => {
            for (x, y) in x.iter().zip(y.iter()) {
                compare(reader, batch, *x, *y, depth + 1, before, after)?;
            }
            Ok(())
        }
        _ => {
            collect(reader, batch, a, depth, before)?;
            collect(reader, batch, b, depth, after)
        }
    }
}

#[cfg(test)]
mod tests;
