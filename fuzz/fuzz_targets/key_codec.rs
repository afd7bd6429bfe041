//! The store's keys: bytes sort as the values do, and every table reads back just what it wrote.

#![no_main]

use std::fmt::Debug;

use arbitrary::{Arbitrary, Unstructured};
use exeunt_core::ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_store::{Key, Table, TableVisitor, tables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(()) = tables::visit_all(&mut Rows(data));
    let mut input = Unstructured::new(data);
    if let Ok((a, b)) = <(Parts, Parts)>::arbitrary(&mut input) {
        pairs(a, b);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        round_trip(&text.to_owned());
        round_trip(&OwnedDeviceId::from(text));
        id::<OwnedEventId>(text);
        id::<OwnedRoomId>(text);
        id::<OwnedServerName>(text);
        id::<OwnedUserId>(text);
    }
});

/// What is an identifier at all is one as a key, too.
fn id<'a, K: Key + PartialEq + Debug + TryFrom<&'a str>>(text: &'a str) {
    if let Ok(id) = K::try_from(text) {
        round_trip(&id);
    }
}

/// Something for every kind of part.
#[derive(Arbitrary, Clone)]
struct Parts {
    text: String,
    other: String,
    signed: i64,
    unsigned: u64,
    bytes: [u8; 16],
}

/// Keys of every shape that a table has, from two sets of parts.
fn pairs(a: Parts, b: Parts) {
    sorted(&a.text, &b.text);
    sorted(&a.signed, &b.signed);
    sorted(&a.unsigned, &b.unsigned);
    sorted(&a.bytes, &b.bytes);
    let tuple = |p: &Parts| (p.text.clone(), p.signed);
    sorted(&tuple(&a), &tuple(&b));
    let tuple = |p: &Parts| (p.text.clone(), p.unsigned, p.other.clone());
    sorted(&tuple(&a), &tuple(&b));
    let tuple = |p: &Parts| (p.unsigned, p.text.clone(), p.bytes, p.other.clone());
    sorted(&tuple(&a), &tuple(&b));
    // Alike but for the end: there the order is decided.
    let near = Parts { text: a.text.clone(), ..b };
    let tuple = |p: &Parts| (p.text.clone(), p.other.clone(), p.signed);
    sorted(&tuple(&a), &tuple(&near));
    // A part is a prefix of the keys that begin with it, and of no other.
    let starts = tuple(&a).to_bytes().starts_with(&near.other.to_bytes());
    assert_eq!(starts, a.text == near.other);
}

fn sorted<K: Key + Ord + Debug>(a: &K, b: &K) {
    let (x, y) = (round_trip(a), round_trip(b));
    assert_eq!(x.cmp(&y), a.cmp(b), "{a:?} and {b:?}");
    assert!(x == y || !y.starts_with(&x), "{a:?} begins {b:?}");
}

fn round_trip<K: Key + PartialEq + Debug>(key: &K) -> Vec<u8> {
    let bytes = key.to_bytes();
    assert_eq!(K::from_bytes(&bytes).as_ref(), Ok(key));
    bytes
}

/// The input as key and as value of every table.
struct Rows<'a>(&'a [u8]);

impl TableVisitor for Rows<'_> {
    type Error = std::convert::Infallible;

    fn visit<T: Table>(&mut self) -> Result<(), Self::Error> {
        if let Ok(key) = T::Key::from_bytes(self.0) {
            assert_eq!(key.to_bytes(), self.0, "a key of {}", T::NAME);
        }
        if let Ok(value) = serde_json::from_slice::<T::Value>(self.0) {
            let json = serde_json::to_vec(&value).expect("a value is written");
            let again: T::Value = serde_json::from_slice(&json).expect("what we write, we read");
            let twice = serde_json::to_vec(&again).expect("a value is written");
            assert_eq!(json, twice, "a value of {}", T::NAME);
        }
        Ok(())
    }
}
