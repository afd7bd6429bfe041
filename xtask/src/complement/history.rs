//! Which tests ever passed, as git remembers `results.jsonl`.

use std::{collections::BTreeMap, path::Path, process::Command};

use super::{
    RESULTS,
    results::{Outcome, parse_line},
};

/// Tests that passed in some committed version, and the newest commit that recorded it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct History {
    pub passed: BTreeMap<String, String>,
    /// Why there is less history than there could be.
    pub note: Option<String>,
}

const COMMIT: &str = "commit ";

/// Reads every version up to `HEAD`, that of `HEAD` included.
pub fn read(root: &Path) -> Result<History, String> {
    let unknown = |note: &str| History { note: Some(note.into()), ..History::default() };
    if let Err(error) = git(root, &["rev-parse", "--is-inside-work-tree"]) {
        // A checkout whose git does not work is not one without history.
        return if root.join(".git").exists() { Err(error) } else { Ok(unknown("no git here")) };
    }
    if git(root, &["rev-parse", "--verify", "--quiet", "HEAD"]).is_err() {
        return Ok(unknown("no commit yet"));
    }
    let mut words = vec!["log", "--full-history", "-m", "-p", "-U0", "--text", "--no-color"];
    words.extend(["--no-ext-diff", "--no-textconv", "--no-renames", "--format=commit %h"]);
    words.extend(["HEAD", "--", RESULTS]);
    let passed = passed(&git(root, &words)?);
    let shallow = git(root, &["rev-parse", "--is-shallow-repository"])?.trim() == "true";
    let note = shallow.then(|| "a shallow clone: the history may go further back".into());
    Ok(History { passed, note })
}

/// Every line that some commit added, newest commit first, is part of some version.
fn passed(log: &str) -> BTreeMap<String, String> {
    let mut passed = BTreeMap::new();
    let mut commit = "";
    for line in log.lines() {
        if let Some(id) = line.strip_prefix(COMMIT) {
            commit = id;
        } else if let Some((test, Outcome::Pass)) = line.strip_prefix('+').and_then(parse_line) {
            passed.entry(test).or_insert_with(|| commit.to_owned());
        }
    }
    passed
}

/// What git prints; an error when it fails.
pub fn git(root: &Path, words: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(words)
        .current_dir(root)
        .output()
        .map_err(|error| format!("git does not start: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {}: {}", words[0], said.trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("git {}: not UTF-8", words[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_passes_are_collected_from_every_commit() {
        let log = "commit bbb\n\ndiff --git a/r b/r\n--- a/r\n+++ b/r\n@@ -1 +1 @@\n\
            -{\"Action\":\"pass\",\"Test\":\"TestA\"}\n+{\"Action\":\"fail\",\"Test\":\"TestA\"}\n\
            +{\"Action\":\"pass\",\"Test\":\"TestB\"}\n\
            commit aaa\n\n+++ b/r\n+{\"Action\":\"pass\",\"Test\":\"TestA\"}\n\
            +{\"Action\":\"pass\",\"Test\":\"TestB\"}\n+{\"Action\":\"skip\",\"Test\":\"TestC\"}\n";
        let expected = [("TestA", "aaa"), ("TestB", "bbb")];
        assert_eq!(passed(log), expected.map(|(t, c)| (t.to_owned(), c.to_owned())).into());
    }
}
