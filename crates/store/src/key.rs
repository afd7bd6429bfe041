//! Keys: bytes that sort as the values do, each part readable without the next.

use std::borrow::Cow;

use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId,
};
use thiserror::Error;

/// Why bytes are no key or value of their table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("the bytes end early")]
    Short,
    #[error("bytes are left over")]
    Long,
    #[error("an escape that nothing writes")]
    Escape,
    #[error("not UTF-8")]
    Utf8,
    #[error("not an identifier: {0}")]
    Id(String),
    #[error("unknown value format {0}")]
    Format(u8),
    #[error("not a value of the table: {0}")]
    Value(String),
}

/// A table's key. Encodings sort like their values and no key is the beginning of another, so that
/// a shorter tuple is a prefix of exactly the longer ones that begin with it.
pub trait Key: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(input: &mut &[u8]) -> Result<Self, CodecError>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a key that takes all of the bytes.
    fn from_bytes(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let key = Self::read(&mut bytes)?;
        if bytes.is_empty() { Ok(key) } else { Err(CodecError::Long) }
    }
}

const END: u8 = 0;
const ESCAPE: u8 = 1;

/// Text ends with a zero byte; 0 and 1 inside it become 1 1 and 1 2.
fn write_text(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte > ESCAPE) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            match byte {
                END | ESCAPE => out.extend([ESCAPE, byte + 1]),
                byte => out.push(byte),
            }
        }
    }
    out.push(END);
}

fn read_text<'i>(input: &mut &'i [u8]) -> Result<Cow<'i, str>, CodecError> {
    let bytes = *input;
    let plain = bytes.iter().position(|byte| *byte <= ESCAPE).ok_or(CodecError::Short)?;
    let (text, rest) = bytes.split_at(plain);
    *input = rest;
    if let [END, rest @ ..] = rest {
        *input = rest;
        return str::from_utf8(text).map(Cow::Borrowed).map_err(|_| CodecError::Utf8);
    }
    let mut text = text.to_vec();
    loop {
        let [byte] = take(input)?;
        match byte {
            END => {
                let text = String::from_utf8(text).map_err(|_| CodecError::Utf8)?;
                return Ok(Cow::Owned(text));
            }
            ESCAPE => match take(input)? {
                [escaped @ 1..=2] => text.push(escaped - 1),
                _ => return Err(CodecError::Escape),
            },
            byte => text.push(byte),
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (head, tail) = input.split_first_chunk().ok_or(CodecError::Short)?;
    *input = tail;
    Ok(*head)
}

impl Key for () {
    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl Key for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }

    fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(read_text(input)?.into_owned())
    }
}

impl Key for OwnedDeviceId {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self.as_str(), out);
    }

    fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((&*read_text(input)?).into())
    }
}

macro_rules! id_keys {
    ($($id:ty),*) => {$(
        impl Key for $id {
            fn write(&self, out: &mut Vec<u8>) {
                write_text(self.as_str(), out);
            }

            fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
                let text = read_text(input)?;
                <$id>::try_from(&*text).map_err(|e| CodecError::Id(format!("{text}: {e}")))
            }
        }
    )*};
}

id_keys!(OwnedRoomId, OwnedEventId, OwnedUserId, OwnedServerName, OwnedRoomAliasId);

impl Key for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }

    fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(u64::from_be_bytes(take(input)?))
    }
}

/// The sign bit is flipped, so that negative numbers sort first.
impl Key for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        (self.cast_unsigned() ^ (1 << 63)).write(out);
    }

    fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((u64::read(input)? ^ (1 << 63)).cast_signed())
    }
}

impl<const N: usize> Key for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self);
    }

    fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
        take(input)
    }
}

/// One part of a key: no tuple.
pub trait Part: Key {}

/// A beginning of the key `K`: nothing, its first parts, or all of it.
pub trait Prefix<K: Key>: Key {}

impl<K: Key> Prefix<K> for () {}
impl<A: Part> Prefix<A> for A {}

macro_rules! parts {
    ($($part:ty),*) => { $(impl Part for $part {})* };
}

parts!(String, OwnedDeviceId, OwnedRoomId, OwnedEventId, OwnedUserId, OwnedServerName);
parts!(OwnedRoomAliasId, u64, i64);
impl<const N: usize> Part for [u8; N] {}

macro_rules! tuple_keys {
    ($(($($part:ident $index:tt),*): $($prefix:ty),*;)*) => {$(
        impl<$($part: Part),*> Key for ($($part,)*) {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$index.write(out);)*
            }

            fn read(input: &mut &[u8]) -> Result<Self, CodecError> {
                Ok(($($part::read(input)?,)*))
            }
        }

        tuple_keys!(@prefixes ($($part),*) $($prefix),*);
    )*};
    (@prefixes $parts:tt $($prefix:ty),*) => { $(tuple_keys!(@prefix $parts $prefix);)* };
    (@prefix ($($part:ident),*) $prefix:ty) => {
        impl<$($part: Part),*> Prefix<($($part,)*)> for $prefix {}
    };
}

tuple_keys! {
    (A 0, B 1): A, (A, B);
    (A 0, B 1, C 2): A, (A, B), (A, B, C);
    (A 0, B 1, C 2, D 3): A, (A, B), (A, B, C), (A, B, C, D);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<K: Key + Ord + std::fmt::Debug>(a: &K, b: &K) -> Result<(), TestCaseError> {
        let (x, y) = (a.to_bytes(), b.to_bytes());
        prop_assert_eq!(x.cmp(&y), a.cmp(b));
        prop_assert_eq!(&K::from_bytes(&x).unwrap(), a);
        prop_assert!(x == y || !y.starts_with(&x));
        Ok(())
    }

    /// Texts in which zeros, ones and common beginnings abound.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[\u{0}\u{1}\u{2}a]{0,6}", ".{0,8}"]
    }

    proptest! {
        #[test]
        fn texts(a in text(), b in text()) {
            check(&a, &b)?;
        }

        #[test]
        fn numbers(a: i64, b: i64, c: u64, d: u64) {
            check(&a, &b)?;
            check(&c, &d)?;
        }

        #[test]
        fn tuples(
            a in (text(), -2i64..2, text()),
            b in (text(), -2i64..2, text()),
            bytes: [u8; 16],
        ) {
            check(&a, &b)?;
            check(&(a.0.clone(), bytes), &(b.0.clone(), bytes))?;
            check(&(0u64, a.0.clone(), a.1, a.2.clone()), &(0u64, b.0.clone(), b.1, b.2.clone()))?;
            prop_assert_eq!(a.0 == b.0, a.to_bytes().starts_with(&b.0.to_bytes()));
        }

        #[test]
        fn garbage_is_an_error_or_reads_back(bytes: Vec<u8>) {
            if let Ok(key) = <(String, u64)>::from_bytes(&bytes) {
                prop_assert_eq!(key.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn identifiers_are_checked() {
        let user = ruma::owned_user_id!("@a:example.org");
        assert_eq!(OwnedUserId::from_bytes(&user.to_bytes()), Ok(user));
        let not_a_user = "example.org".to_owned().to_bytes();
        assert!(matches!(OwnedUserId::from_bytes(&not_a_user), Err(CodecError::Id(_))));
        assert_eq!(u64::from_bytes(&[0; 9]), Err(CodecError::Long));
        assert_eq!(u64::from_bytes(&[0; 7]), Err(CodecError::Short));
    }
}
