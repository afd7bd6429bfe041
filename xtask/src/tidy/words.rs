//! Words that must not stand in a file: I/O in pure crates, unfinished work, private paths.
//!
//! The words are put together here, so that this file does not contain them.

use super::Finding;

/// Crates without I/O, clock and randomness.
const PURE: &[&str] = &["core", "state-res", "acl", "membership"];

const IMPURE: &[(&str, &str)] = &[
    ("tokio", "runs on no runtime"),
    ("async_trait", "is not async"),
    ("async fn", "is not async"),
    ("async move", "is not async"),
    ("SystemTime", "has no clock: take `now_ms` as a parameter"),
    ("Instant", "has no clock: take `now_ms` as a parameter"),
    ("rand", "has no randomness: take it as a parameter"),
    ("SystemRandom", "has no randomness: take it as a parameter"),
    ("thread", "has no threads"),
    ("std::fs", "does no I/O"),
    ("std::net", "does no I/O"),
];

const UNFINISHED: &[(&str, &str)] = &[
    (concat!("todo", "!"), "finish it"),
    (concat!("unimplemented", "!"), "finish it"),
    (concat!("dbg", "!"), "remove it, or log it"),
    (concat!("#[", "ignore"), "make the test run, or delete it"),
];

const PRIVATE: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Whether a path is code of a pure crate that ships (not its tests).
pub fn is_pure_source(path: &str) -> bool {
    PURE.iter().any(|name| {
        let rest = path.strip_prefix("crates/").and_then(|p| p.strip_prefix(name));
        rest.and_then(|p| p.strip_prefix("/src/")).is_some_and(|file| {
            let is_test = |part: &str| part.trim_end_matches(".rs") == "tests";
            file.ends_with(".rs") && !file.split('/').any(is_test)
        })
    })
}

/// I/O, clocks and randomness in the code of a pure crate.
pub fn impure(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, code) in shipped_code(text) {
        for (word, rule) in IMPURE {
            if contains_word(code, word) {
                let text = format!("`{word}` in a pure crate, which {rule}");
                findings.push(Finding::new(path, line, text));
            }
        }
    }
    findings
}

/// Events are signed in one place, with the journal beside it.
pub fn signing(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !path.contains("/src/") || MAY_SIGN.iter().any(|may| path.starts_with(may)) {
        return findings;
    }
    for (line, code) in shipped_code(text) {
        for word in SIGNS.iter().filter(|word| code.contains(**word)) {
            let text = format!("`{word}` signs an event; room/src/signing.rs alone does that");
            findings.push(Finding::new(path, line, text));
        }
    }
    findings
}

/// What puts our signature on an event.
const SIGNS: [&str; 4] = [".sign(&", ".sign(self", "into_draft(", "inner.signer)"];
/// Where that is made or meant: the key itself, its one user, peers of tests, and this list.
const MAY_SIGN: [&str; 6] = [
    "crates/core/",
    "crates/room/src/signing.rs",
    "crates/membership/src/drafts.rs",
    "crates/sim/",
    "crates/graphs/",
    "xtask/",
];

/// Marks of unfinished work.
pub fn unfinished(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (word, advice) in UNFINISHED {
            if contains_word(line, word) {
                let text = format!("`{word}` is not for committed code; {advice}");
                findings.push(Finding::new(path, index + 1, text));
            }
        }
    }
    findings
}

/// Paths of somebody's machine.
pub fn private_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in PRIVATE {
            // `example.org/home/` and `$HOME/…` are not absolute paths.
            let found = line.match_indices(word).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}~/)".contains(c))
            });
            if found {
                let text = format!("`{word}…` is one machine's path; make it relative");
                findings.push(Finding::new(path, index + 1, text));
            }
        }
    }
    findings
}

/// Numbered lines without comments and without `#[cfg(test)]` modules (as rustfmt lays them out).
fn shipped_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        loop {
            let (index, line) = lines.next()?;
            if line.trim() == "#[cfg(test)]" {
                let indent = line.len() - line.trim_start().len();
                let item = lines.find(|(_, line)| !line.trim_start().starts_with("#["));
                if item.is_some_and(|(_, item)| item.ends_with('{')) {
                    let ends = |line: &str| line.len() == indent + 1 && line.ends_with('}');
                    lines.find(|(_, line)| ends(line))?;
                }
                continue;
            }
            let code = line.split("//").next().unwrap_or_default();
            return Some((index + 1, code));
        }
    })
}

/// Whether `word` stands in `line` and is not part of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        let goes_on = word.ends_with(part) && after.starts_with(part);
        !goes_on && !line[..at].ends_with(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: Vec<Finding>) -> Vec<usize> {
        findings.into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn pure_code_is_told_from_its_tests() {
        assert!(is_pure_source("crates/core/src/pdu.rs"));
        assert!(is_pure_source("crates/state-res/src/auth/member.rs"));
        assert!(!is_pure_source("crates/core/src/pdu/tests.rs"));
        assert!(!is_pure_source("crates/core/tests/pdu.rs"));
        assert!(!is_pure_source("crates/room/src/lib.rs"));
        assert!(!is_pure_source("crates/core/Cargo.toml"));
    }

    #[test]
    fn impure_words_are_found_as_words() {
        let text = "use tokio::time;\nasync fn a() {}\nlet operand = brand(rand::rng());\n\
             // tokio in a comment\nlet t: std::time::Instant = Instantly;\n";
        assert_eq!(lines(impure("a.rs", text)), [1, 2, 3, 5]);
    }

    #[test]
    fn test_modules_may_do_what_they_like() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n        tokio();\n    }\n}\n\
             use std::fs;\n#[cfg(test)]\nmod more;\nuse std::net;\n";
        assert_eq!(lines(impure("a.rs", text)), [8, 11]);
    }

    #[test]
    fn signing_elsewhere_is_found() {
        let text = "draft.sign(&key)?;\nsigning.sign(leave);\nx.into_draft();\n// a.sign(&b)\n";
        assert_eq!(lines(signing("crates/room/src/leave.rs", text)), [1, 3]);
        assert!(signing("crates/room/src/signing.rs", text).is_empty());
        assert!(signing("crates/room/tests/a.rs", text).is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = ["fn a() { todo", "!() }\nlet x = my_todo", "!();\n#[ign", "ore]\n"].concat();
        assert_eq!(lines(unfinished("a.rs", &text)), [1, 3]);
    }

    #[test]
    fn private_paths_are_found() {
        let text = ["cd /ro", "ot/x\nhttps://a.org/ho", "me/\n\"$D/ho", "me/\"\n'/ho", "me/me'\n"];
        assert_eq!(lines(private_paths("a", &text.concat())), [1, 4]);
    }
}
