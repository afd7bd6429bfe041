//! Walks the whole store and says what does not hold.

mod references;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::table::{decode_key, decode_value, display_key};
use crate::{Reader, Store, StoreError, Table, TableVisitor, tables};

/// Most findings that a report lists; the rest is only counted.
pub const MAX_FINDINGS: usize = 1000;

/// What a walk through the store found.
#[derive(Debug, Default)]
pub struct Report {
    pub rows: u64,
    /// State nodes that nothing leads to: no harm, [`collect_state`](crate::collect_state) takes
    /// them.
    pub unreferenced: u64,
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub more: u64,
}

/// A row that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub table: &'static str,
    pub key: String,
    pub problem: String,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn add(&mut self, table: &'static str, key: String, problem: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { table, key, problem });
        } else {
            self.more += 1;
        }
    }
}

/// Verifies everything, in one snapshot: rows decode, no prefix is unknown, what rows refer to is
/// there, state trees are whole, no position is ahead of the counter. Takes time in proportion to the store.
pub fn verify(store: &Store) -> Result<Report, StoreError> {
    let reader = store.reader();
    let mut report = Report::default();
    tables::visit_all(&mut Rows { reader: &reader, report: &mut report })?;
    unknown_tables(&reader, &mut report)?;
    references::check(&reader, &mut report)?;
    Ok(report)
}

/// Every key and value of known tables decodes.
struct Rows<'a> {
    reader: &'a Reader<'a>,
    report: &'a mut Report,
}

impl TableVisitor for Rows<'_> {
    type Error = StoreError;

    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        for row in self.reader.raw::<T>() {
            let (key, value) = row?;
            self.report.rows += 1;
            if let Err(problem) = decode_key::<T>(&key) {
                self.report.add(T::NAME, display_key(&key), format!("key: {problem}"));
            }
            if let Err(problem) = decode_value::<T>(&value) {
                self.report.add(T::NAME, display_key(&key), format!("value: {problem}"));
            }
        }
        Ok(())
    }
}

/// No rows outside the known tables: one finding for each prefix.
fn unknown_tables(reader: &Reader, report: &mut Report) -> Result<(), StoreError> {
    let known: BTreeSet<u8> = tables::ALL.iter().map(|(prefix, _)| *prefix).collect();
    for prefix in (0..=u8::MAX).filter(|prefix| !known.contains(prefix)) {
        if let Some(row) = reader.raw_prefix(prefix).next() {
            let (key, _) = row?;
            report.add("", display_key(&key), format!("no table has the prefix {prefix:#04x}"));
        }
    }
    Ok(())
}
