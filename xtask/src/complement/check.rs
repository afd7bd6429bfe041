//! Checks the records: their form, where they come from, and that nothing got worse.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{
    ACCEPTED, RESULTS, RUNS, history,
    ratchet::{self, Accepted},
    read,
    results::{self, top_level},
};
use crate::tidy::Finding;

#[derive(Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// Checks the tree at `root`.
pub fn run(root: &Path) -> Result<Report, String> {
    let (accepted, mut findings) = Accepted::parse(&read(root, ACCEPTED)?.unwrap_or_default());
    let history = history::read(root)?;
    let mut notes: Vec<String> = history.note.into_iter().collect();
    let text = read(root, RESULTS)?;
    if text.is_none() {
        notes.push(format!("{RESULTS} does not exist yet"));
    }
    let (recorded, malformed) = results::parse(&text.unwrap_or_default());
    findings.extend(malformed);
    let tests = recorded.keys().map(|test| top_level(test)).collect();
    findings.extend(origins(&tests, &read(root, RUNS)?.unwrap_or_default()));
    findings.extend(ratchet::compare(&recorded, &history.passed, &accepted));
    findings.sort();
    Ok(Report { findings, notes })
}

/// Every recorded test comes from a recorded run.
fn origins(tests: &BTreeSet<&str>, runs: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for (index, line) in runs.lines().enumerate() {
        match tests_of_run(line) {
            Some(tests) => named.extend(tests),
            None => {
                let text = "is not a run with its `commit`, `counts`, `settings` and `tests`";
                findings.push(Finding::new(RUNS, index + 1, text));
            }
        }
    }
    let unnamed = tests.iter().filter(|test| !named.contains(**test)).map(|test| {
        let text = format!("{test} is in no run of {RUNS}; record a run with complement-record");
        Finding::new(RESULTS, 1, text)
    });
    findings.extend(unnamed);
    findings
}

fn tests_of_run(line: &str) -> Option<Vec<String>> {
    let run: Value = serde_json::from_str(line).ok()?;
    run.get("commit")?.as_str()?;
    run.get("counts")?.as_object()?;
    run.get("settings")?.as_object()?;
    run.get("tests")?.as_array()?.iter().map(|test| test.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_comes_from_a_run() {
        let run = "{\"commit\":\"a\",\"counts\":{},\"settings\":{},\"tests\":[\"TestA\"]}\n";
        assert_eq!(origins(&["TestA"].into(), run), []);
        assert_eq!(origins(&["TestA", "TestB"].into(), run).len(), 1);
        assert_eq!(origins(&BTreeSet::new(), "{\"commit\":\"a\"}\n").len(), 1);
        assert_eq!(origins(&BTreeSet::new(), ""), []);
    }
}
