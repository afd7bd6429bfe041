//! What an engine must do. Every engine runs the same checks.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::memory::MemoryEngine;
use super::rocks::RocksEngine;
use super::{Changes, Engine, Snapshot, after_prefix};

/// Runs a check on every engine.
fn on_engines(check: impl Fn(&dyn Engine)) {
    check(&MemoryEngine::default());
    let dir = TempDir::new().unwrap();
    check(&RocksEngine::open(dir.path()).unwrap());
}

fn changes(rows: &[(&str, Option<&str>)]) -> Changes {
    rows.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec()))).collect()
}

fn keys(snapshot: &dyn Snapshot, start: &str, end: Option<&str>, reverse: bool) -> String {
    let rows = snapshot.range(start.as_bytes(), end.map(str::as_bytes), reverse);
    rows.map(|row| String::from_utf8(row.unwrap().0.into_vec()).unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn puts_and_deletes() {
    on_engines(|engine| {
        engine.write(&changes(&[("a", Some("1")), ("b", Some(""))])).unwrap();
        engine.write(&changes(&[("a", None), ("c", Some("3")), ("never", None)])).unwrap();
        let snapshot = engine.snapshot();
        assert_eq!(snapshot.get(b"a").unwrap(), None);
        assert_eq!(snapshot.get(b"b").unwrap(), Some(Vec::new()));
        assert_eq!(snapshot.get(b"c").unwrap(), Some(b"3".to_vec()));
    });
}

#[test]
fn ranges() {
    on_engines(|engine| {
        let rows = ["a", "ab", "b", "ba", "c"].map(|key| (key, Some("")));
        engine.write(&changes(&rows)).unwrap();
        let snapshot = engine.snapshot();
        assert_eq!(keys(&*snapshot, "", None, false), "a ab b ba c");
        assert_eq!(keys(&*snapshot, "", None, true), "c ba b ab a");
        assert_eq!(keys(&*snapshot, "ab", Some("c"), false), "ab b ba");
        assert_eq!(keys(&*snapshot, "ab", Some("c"), true), "ba b ab");
        assert_eq!(keys(&*snapshot, "aa", Some("ac"), true), "ab");
        assert_eq!(keys(&*snapshot, "b", Some("b"), false), "");
        assert_eq!(keys(&*snapshot, "c", Some("a"), true), "");
        assert_eq!(keys(&*snapshot, "d", None, true), "");
    });
}

/// However many there are, within the range and beyond it.
#[test]
fn ranges_pass_over_deleted_rows() {
    on_engines(|engine| {
        let all: Vec<_> = (0..2_000).map(|number| format!("{number:04}")).collect();
        let rows: Vec<_> = all.iter().map(|key| (key.as_str(), Some(""))).collect();
        engine.write(&changes(&rows)).unwrap();
        let rows: Vec<_> = all.iter().map(|key| (key.as_str(), None)).collect();
        let gone: Vec<_> = rows.into_iter().filter(|(key, _)| !key.ends_with("500")).collect();
        engine.write(&changes(&gone)).unwrap();
        let snapshot = engine.snapshot();
        for (start, end, found) in [
            ("", None, ["0500", "1500"].as_slice()),
            ("0001", Some("1501"), &["0500", "1500"]),
            ("0001", Some("1500"), &["0500"]),
            ("0500", Some("0501"), &["0500"]),
            ("0501", Some("1400"), &[]),
        ] {
            assert_eq!(keys(&*snapshot, start, end, false), found.join(" "));
            let found: Vec<_> = found.iter().rev().copied().collect();
            assert_eq!(keys(&*snapshot, start, end, true), found.join(" "));
        }
    });
}

/// Several are read at once, and some are left off.
#[test]
fn ranges_do_not_disturb_each_other() {
    on_engines(|engine| {
        engine.write(&changes(&["a", "b", "c", "d"].map(|key| (key, Some(""))))).unwrap();
        let snapshot = engine.snapshot();
        let mut first = snapshot.range(b"a", Some(b"d"), false);
        let mut key =
            || first.next().map(|row| String::from_utf8(row.unwrap().0.into_vec()).unwrap());
        assert_eq!(key().as_deref(), Some("a"));
        assert_eq!(snapshot.range(b"b", None, true).take(1).count(), 1);
        assert_eq!(keys(&*snapshot, "b", None, true), "d c b");
        assert_eq!(key().as_deref(), Some("b"));
        assert_eq!(keys(&*snapshot, "c", None, false), "c d");
        assert_eq!((key().as_deref(), key()), (Some("c"), None));
    });
}

#[test]
fn snapshots_stand_still() {
    on_engines(|engine| {
        engine.write(&changes(&[("a", Some("1")), ("b", Some("1"))])).unwrap();
        let before = engine.snapshot();
        engine.write(&changes(&[("a", Some("2")), ("b", None), ("c", Some("2"))])).unwrap();
        engine.flush().unwrap();
        assert_eq!(before.get(b"a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(keys(&*before, "", None, false), "a b");
        assert_eq!(keys(&*engine.snapshot(), "", None, false), "a c");
    });
}

#[test]
fn first_key_after_a_prefix() {
    assert_eq!(after_prefix(b"a"), Some(b"b".to_vec()));
    assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(after_prefix(b"\xff"), None);
    assert_eq!(after_prefix(b""), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any history of batches leaves both engines with the rows that a map has.
    #[test]
    fn engines_agree_with_a_map(
        batches in prop::collection::vec(
            prop::collection::btree_map("[ab\u{0}\u{7f}]{0,3}", prop::option::of("[xy]{0,2}"), 0..6),
            0..12,
        ),
        from in "[ab]{0,2}",
        to in "[ab]{0,2}",
    ) {
        on_engines(|engine| {
            let mut model = BTreeMap::new();
            for batch in &batches {
                let rows: Vec<_> = batch.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
                engine.write(&changes(&rows)).unwrap();
                for (key, value) in batch {
                    match value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(key),
                    };
                }
            }
            let snapshot = engine.snapshot();
            for reverse in [false, true] {
                let mut expected: Vec<_> = model.iter().filter(|(k, _)| **k >= from && **k < to).collect();
                if reverse {
                    expected.reverse();
                }
                let rows = snapshot.range(from.as_bytes(), Some(to.as_bytes()), reverse);
                let rows: Vec<_> = rows.map(Result::unwrap).collect();
                let rows: Vec<_> = rows.iter().map(|(k, v)| (&**k, &**v)).collect();
                let expected: Vec<_> =
                    expected.into_iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
                assert_eq!(rows, expected);
            }
        });
    }
}
