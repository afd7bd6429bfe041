//! Tables are types, declared in one list; how their rows become bytes.

use serde::{Serialize, de::DeserializeOwned};

use crate::{CodecError, Key, StoreError};

/// A table: rows of one kind under one prefix byte.
pub trait Table: 'static {
    const NAME: &'static str;
    const PREFIX: u8;
    type Key: Key;
    type Value: Serialize + DeserializeOwned;
}

/// A row of a table: key and value.
pub type RowOf<T> = (<T as Table>::Key, <T as Table>::Value);

/// Something to do for every table of a list.
pub trait TableVisitor {
    type Error;
    fn visit<T: Table>(&mut self) -> Result<(), Self::Error>;
}

/// Declares tables: a unit struct for each, `ALL` with their prefixes and names, and `visit_all`.
macro_rules! tables {
    ($($(#[$doc:meta])* $prefix:literal $name:ident: $key:ty => $value:ty,)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::Table for $name {
                const NAME: &'static str = stringify!($name);
                const PREFIX: u8 = $prefix;
                type Key = $key;
                type Value = $value;
            }
        )*

        /// Prefix and name of every table.
        pub const ALL: &[(u8, &str)] = &[$(($prefix, stringify!($name))),*];

        /// Visits every table of the list, in its order.
        pub fn visit_all<V: $crate::TableVisitor>(visitor: &mut V) -> Result<(), V::Error> {
            $(visitor.visit::<$name>()?;)*
            Ok(())
        }
    };
}

/// Most keys are not longer: two identifiers and a number.
const USUAL_KEY_BYTES: usize = 100;
/// First byte of every value: serde's JSON follows.
const FORMAT_JSON: u8 = 1;

/// The whole key of a row: prefix byte and key, or the beginning of one.
pub(crate) fn row_key<T: Table>(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_KEY_BYTES);
    out.push(T::PREFIX);
    key.write(&mut out);
    out
}

/// Reads a row's key. Never empty: the engine was asked for keys with the table's prefix.
pub(crate) fn decode_key<T: Table>(row_key: &[u8]) -> Result<T::Key, CodecError> {
    T::Key::from_bytes(row_key.get(1..).ok_or(CodecError::Short)?)
}

pub(crate) fn encode_value<T: Table>(value: &T::Value) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT_JSON];
    serde_json::to_writer(&mut out, value)
        .map_err(|e| StoreError::Encode { table: T::NAME, problem: e.to_string() })?;
    Ok(out)
}

pub(crate) fn decode_value<T: Table>(bytes: &[u8]) -> Result<T::Value, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Short),
        Some((&FORMAT_JSON, json)) => {
            serde_json::from_slice(json).map_err(|e| CodecError::Value(e.to_string()))
        }
        Some((&format, _)) => Err(CodecError::Format(format)),
    }
}

/// The error for a row that cannot be read. What is wrong with it goes to the log.
pub(crate) fn corrupt<T: Table>(row_key: &[u8], problem: &CodecError) -> StoreError {
    let key = display_key(row_key);
    tracing::error!(table = T::NAME, key, %problem, "unreadable row");
    StoreError::Corrupt { table: T::NAME, key }
}

/// A row's key for people.
pub(crate) fn display_key(row_key: &[u8]) -> String {
    row_key.get(1..).unwrap_or_default().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::tables::ALL;

    #[test]
    fn prefixes_and_names_are_unique() {
        let prefixes: BTreeSet<u8> = ALL.iter().map(|(prefix, _)| *prefix).collect();
        let names: BTreeSet<&str> = ALL.iter().map(|(_, name)| *name).collect();
        assert_eq!(prefixes.len(), ALL.len());
        assert_eq!(names.len(), ALL.len());
    }
}
