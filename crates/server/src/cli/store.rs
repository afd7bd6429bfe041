//! `exeunt store verify` and `exeunt store collect`

use std::fmt::Write;

use exeunt_store::Collected;

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
    if report.unreferenced > 0 {
        let count = report.unreferenced;
        writeln!(text, "{count} state nodes lead nowhere; exeunt store collect deletes them")
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

/// Ends purges that were cut off, deletes state nodes that nothing leads to, and compacts the
/// database; returns what to print.
pub fn collect(config: &Config) -> Result<String, Failure> {
    let store = open_existing(config)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(Failure::Runtime)?;
    let collected = runtime.block_on(async {
        exeunt_store::resume_purges(&store).await?;
        let collected = exeunt_store::collect_state(&store).await?;
        store.compact().map(|()| collected)
    });
    store.close();
    let Collected { kept, deleted } = collected?;
    Ok(format!("{deleted} state nodes deleted, {kept} kept\n"))
}
