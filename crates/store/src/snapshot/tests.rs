use std::iter;

use proptest::prelude::*;

use super::*;
use crate::Store;

type Map = StateMap<OwnedEventId>;

fn event(number: u8) -> OwnedEventId {
    OwnedEventId::try_from(format!("$event{number}")).unwrap()
}

/// Few enough keys that changes meet, enough that leaves become branches and back.
fn key() -> impl Strategy<Value = StateKey> {
    ("[ab\u{0}]{0,2}", 0u8..12).prop_map(|(kind, key)| StateKey::new(kind, format!("@{key}:x.org")))
}

fn map() -> impl Strategy<Value = Map> {
    prop::collection::btree_map(key(), any::<u8>().prop_map(event), 0..60)
}

fn changes() -> impl Strategy<Value = Vec<(StateKey, Option<OwnedEventId>)>> {
    prop::collection::vec((key(), prop::option::of(any::<u8>().prop_map(event))), 0..60)
}

fn changed(map: &Map, changes: &[(StateKey, Option<OwnedEventId>)]) -> Map {
    let mut map = map.clone();
    for (key, event) in changes {
        match event {
            Some(event) => map.insert(key.clone(), event.clone()),
            None => map.remove(key),
        };
    }
    map
}

fn commit(store: &Store, batch: Batch) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(batch)).unwrap();
}

fn write(store: &Store, map: &Map) -> Root {
    let mut batch = Batch::default();
    let root = from_map(map, &mut batch);
    commit(store, batch);
    root
}

fn members(count: usize) -> Map {
    (0..count).map(|n| (StateKey::new("m.room.member", format!("@{n}:x.org")), event(1))).collect()
}

proptest! {
    #[test]
    fn a_tree_is_its_map(map in map(), other in key()) {
        let store = Store::memory();
        let root = write(&store, &map);
        let reader = store.reader();
        prop_assert_eq!(&load(&reader, root).unwrap(), &map);
        let mut walk = Walk::new(root);
        let walked = iter::from_fn(|| walk.next(&reader).unwrap());
        let walked: Vec<_> = walked.collect();
        prop_assert_eq!(walked.len(), map.len());
        prop_assert_eq!(&walked.into_iter().collect::<Map>(), &map);
        for key in map.keys().chain([&other]) {
            prop_assert_eq!(get(&reader, root, key).unwrap(), map.get(key).cloned());
        }
        prop_assert_eq!(root == Root::EMPTY, map.is_empty());
    }

    /// Whatever the way to a state, its root is the same; and steps in one batch see each other.
    #[test]
    fn history_leaves_no_trace(map in map(), steps in prop::collection::vec(changes(), 1..4)) {
        let store = Store::memory();
        let mut root = write(&store, &map);
        let mut model = map;
        let mut batch = Batch::default();
        for step in &steps {
            root = apply(&store.reader(), root, step, &mut batch).unwrap();
            model = changed(&model, step);
            prop_assert_eq!(load((&store.reader(), &batch), root).unwrap(), model.clone());
        }
        prop_assert_eq!(root, from_map(&model, &mut Batch::default()));
        commit(&store, batch);
        prop_assert_eq!(load(&store.reader(), root).unwrap(), model);
    }

    #[test]
    fn differences_make_one_state_of_the_other(a in map(), b in map(), steps in changes()) {
        let store = Store::memory();
        for b in [b, changed(&a, &steps)] {
            let (x, y) = (write(&store, &a), write(&store, &b));
            let reader = store.reader();
            let differences = diff(&reader, x, y).unwrap();
            for change in &differences {
                prop_assert_eq!(change.before.as_ref(), a.get(&change.key));
                prop_assert_eq!(change.after.as_ref(), b.get(&change.key));
                prop_assert_ne!(&change.before, &change.after);
            }
            let steps: Vec<_> = differences.into_iter().map(|c| (c.key, c.after)).collect();
            prop_assert_eq!(&changed(&a, &steps), &b);
            prop_assert_eq!(apply(&reader, x, &steps, &mut Batch::default()).unwrap(), y);
        }
    }
}

#[test]
fn one_change_writes_one_path() {
    let store = Store::memory();
    let root = write(&store, &members(5_000));
    let change = (StateKey::new("m.room.member", "@7:x.org"), Some(event(2)));
    let mut batch = Batch::default();
    let changed = apply(&store.reader(), root, std::slice::from_ref(&change), &mut batch).unwrap();
    commit(&store, batch);
    let before = store.reader().scan::<StateNodes>(()).keys().unwrap().len();
    let mut again = Batch::default();
    assert_eq!(
        apply(&store.reader(), root, std::slice::from_ref(&change), &mut again).unwrap(),
        changed
    );
    commit(&store, again);
    assert_eq!(store.reader().scan::<StateNodes>(()).keys().unwrap().len(), before);

    let written = write_count(&store, changed);
    assert!(written <= 6, "{written} nodes for one change");
    let differences = diff(&store.reader(), root, changed).unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!((&differences[0].key, &differences[0].after), (&change.0, &change.1));
}

/// Nodes that one more change to a state writes.
fn write_count(store: &Store, root: Root) -> usize {
    let before = store.reader().scan::<StateNodes>(()).keys().unwrap().len();
    let change = (StateKey::new("m.room.member", "@8:x.org"), Some(event(3)));
    let mut batch = Batch::default();
    apply(&store.reader(), root, &[change], &mut batch).unwrap();
    commit(store, batch);
    store.reader().scan::<StateNodes>(()).keys().unwrap().len() - before
}

#[test]
fn a_difference_reads_only_what_differs() {
    let store = Store::memory();
    let a = write(&store, &members(5_000));
    let mut batch = Batch::default();
    let gone = [(StateKey::new("m.room.member", "@7:x.org"), None)];
    let b = apply(&store.reader(), a, &gone, &mut batch).unwrap();
    // All nodes that both trees share go: whoever reads one fails.
    let (mut left, mut right) = (Vec::new(), Vec::new());
    commit(&store, batch);
    nodes(&store.reader(), a, &mut left);
    nodes(&store.reader(), b, &mut right);
    let mut batch = Batch::default();
    let shared = left.iter().filter(|id| right.contains(id));
    assert!(shared.clone().count() > 250);
    shared.for_each(|id| batch.delete::<StateNodes>(id));
    commit(&store, batch);
    assert_eq!(diff(&store.reader(), a, b).unwrap().len(), 1);
    assert!(matches!(
        load(&store.reader(), a),
        Err(StoreError::Corrupt { table: "StateNodes", .. })
    ));
}

/// Whoever stops early has read no more than the way there.
#[test]
fn a_walk_reads_as_it_goes() {
    let store = Store::memory();
    let root = write(&store, &members(5_000));
    let (mut all, mut batch) = (Vec::new(), Batch::default());
    nodes(&store.reader(), root, &mut all);
    // In the order of the walk: the last half goes.
    all[all.len() / 2..].iter().for_each(|id| batch.delete::<StateNodes>(id));
    commit(&store, batch);
    let reader = store.reader();
    let mut walk = Walk::new(root);
    let found = iter::from_fn(|| walk.next(&reader).transpose()).take_while(Result::is_ok).count();
    assert!((2_000..3_000).contains(&found), "{found} entries");
}

fn nodes(reader: &Reader, root: Root, into: &mut Vec<[u8; 16]>) {
    into.push(root.0);
    if let Node::Branch(_, children) = &*node(reader, None, root, 0).unwrap() {
        children.into_iter().flatten().for_each(|child| nodes(reader, child, into));
    }
}

#[test]
fn a_missing_node_is_corruption_not_an_empty_state() {
    let store = Store::memory();
    let reader = store.reader();
    let key = StateKey::single("m.room.create");
    let missing = Root([7; 16]);
    let corrupt = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Corrupt { table: "StateNodes", .. })));
    };
    corrupt(get(&reader, missing, &key).map(drop));
    corrupt(load(&reader, missing).map(drop));
    corrupt(Walk::new(missing).next(&reader).map(drop));
    corrupt(diff(&reader, missing, Root::EMPTY).map(drop));
    corrupt(apply(&reader, missing, &[(key, None)], &mut Batch::default()).map(drop));
}
