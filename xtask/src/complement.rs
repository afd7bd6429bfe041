//! What Complement says about our image, kept as data that may only get better.
//!
//! `results.jsonl` holds the newest outcome of every test, `runs.jsonl` where each came from, and
//! `accepted.jsonl` the tests that were given up, each with the reason.

pub mod check;
pub mod gotest;
pub mod history;
pub mod ratchet;
pub mod record;
pub mod results;

use std::{fs, io::ErrorKind, path::Path};

pub const RESULTS: &str = "tests/complement/results.jsonl";
pub const RUNS: &str = "tests/complement/runs.jsonl";
pub const ACCEPTED: &str = "tests/complement/accepted.jsonl";

/// The text of a record; nothing when there is none yet.
fn read(root: &Path, path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(root.join(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Replaces a record as a whole.
fn write(root: &Path, path: &str, text: &str) -> Result<(), String> {
    let target = root.join(path);
    let fresh = target.with_extension("new");
    let folder = target.parent().expect("a record stands in a folder");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&fresh, text))
        .and_then(|()| fs::rename(&fresh, &target))
        .map_err(|error| format!("{path}: cannot be written: {error}"))
}
