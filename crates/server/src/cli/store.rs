//! `exeunt store verify`

use std::fmt::Write;

use super::open_existing;
use crate::{config::Config, failure::Failure};

/// Walks the store; returns what to print, and whether all is well.
pub fn verify(config: &Config) -> Result<(String, bool), Failure> {
    let report = exeunt_store::verify(&open_existing(config)?)?;
    let mut text = String::new();
    for finding in &report.findings {
        writeln!(text, "{} {}: {}", finding.table, finding.key, finding.problem)
            .expect("a string takes everything");
    }
    let rows = report.rows;
    let last = match report.findings.len() as u64 + report.more {
        0 => format!("{rows} rows, all well"),
        found => format!("{rows} rows, {found} findings ({} listed)", report.findings.len()),
    };
    writeln!(text, "{last}").expect("a string takes everything");
    Ok((text, report.is_clean()))
}
