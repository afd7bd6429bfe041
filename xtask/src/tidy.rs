//! The house rules: each check is a pure function over text, and [`run`] feeds it the tree.

pub mod arrows;
pub mod claims;
pub mod length;
pub mod words;

use std::{fmt, fs, path::Path, process::Command};

/// A broken rule: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub text: String,
}

impl Finding {
    pub fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.into(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Checks every file that git knows or would add.
pub fn run(root: &Path) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let list = read(root, length::LIST)?.unwrap_or_default();
    let mut lengths = length::Ratchet::parse(&list);
    let mut claims = claims::Claims::default();
    for path in files(root)? {
        let Some(text) = read(root, &path)? else { continue };
        findings.extend(words::private_paths(&path, &text));
        claims.read(&path, &text);
        if path.ends_with(".rs") {
            findings.extend(words::unfinished(&path, &text));
            findings.extend(words::signing(&path, &text));
            findings.extend(lengths.check(&path, text.lines().count()));
        }
        if words::is_pure_source(&path) {
            findings.extend(words::impure(&path, &text));
        }
        if let Some(crate_name) = arrows::crate_of_manifest(&path) {
            findings.extend(arrows::check(&path, crate_name, &text));
        }
    }
    findings.extend(lengths.finish());
    findings.extend(claims.finish());
    findings.sort();
    Ok(findings)
}

/// Paths relative to the root, with forward slashes.
fn files(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git does not start, and tidy asks it for the files: {e}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8(output.stdout).map_err(|_| "a file name is not UTF-8")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// The text of a file; nothing for one that is gone, a folder (a submodule) or not text.
fn read(root: &Path, path: &str) -> Result<Option<String>, String> {
    let full = root.join(path);
    if !full.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(full).map_err(|e| format!("{path}: {e}"))?;
    Ok(String::from_utf8(bytes).ok())
}
