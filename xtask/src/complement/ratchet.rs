//! A test that passed before passes now, or the reason why not is written down.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    ACCEPTED, RESULTS,
    results::{Outcome, Results, parent},
};
use crate::tidy::Finding;

/// The tests that were given up: their line in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted(BTreeMap<String, usize>);

impl Accepted {
    /// Reads `{"Test":…,"Reason":…}` a line.
    pub fn parse(text: &str) -> (Self, Vec<Finding>) {
        let mut accepted = Self::default();
        let mut findings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match entry(line) {
                None => {
                    let text = r#"is not `{"Test":"…","Reason":"…"}` with a reason in words"#;
                    findings.push(Finding::new(ACCEPTED, index + 1, text));
                }
                Some(test) => {
                    if accepted.0.insert(test.clone(), index + 1).is_some() {
                        let text = format!("{test} is listed twice");
                        findings.push(Finding::new(ACCEPTED, index + 1, text));
                    }
                }
            }
        }
        (accepted, findings)
    }

    fn lists(&self, test: &str) -> bool {
        self.0.contains_key(test)
    }
}

fn entry(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    let object = value.as_object().filter(|object| object.len() == 2)?;
    let word = |key: &str| object.get(key)?.as_str().map(str::trim).filter(|w| !w.is_empty());
    word("Reason")?;
    word("Test").map(str::to_owned)
}

/// What has got worse since the versions in which each test of `passed` passed, and which of the
/// reasons are needed no more.
pub fn compare(
    results: &Results,
    passed: &BTreeMap<String, String>,
    accepted: &Accepted,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (test, commit) in passed {
        let (line, now) = match results.get(test) {
            Some(Outcome::Pass) => continue,
            Some(_) if accepted.lists(test) => continue,
            Some(Outcome::Fail) => (line_of(results, test), "fails now"),
            Some(Outcome::Skip) => (line_of(results, test), "is skipped now"),
            None if gone_with_reason(results, test, accepted) => continue,
            None => (1, "is gone now"),
        };
        let text =
            format!("{test} passed at {commit} and {now}; mend it, or say why in {ACCEPTED}");
        findings.push(Finding::new(RESULTS, line, text));
    }
    for (test, line) in &accepted.0 {
        if results.get(test) == Some(&Outcome::Pass) {
            let text = format!("{test} passes; remove this line");
            findings.push(Finding::new(ACCEPTED, *line, text));
        }
    }
    findings
}

/// A test takes its subtests along when the suite drops it.
fn gone_with_reason(results: &Results, test: &str, accepted: &Accepted) -> bool {
    std::iter::successors(Some(test), |test| parent(test))
        .take_while(|test| !results.contains_key(*test))
        .any(|test| accepted.lists(test))
}

fn line_of(results: &Results, test: &str) -> usize {
    results.keys().take_while(|known| known.as_str() < test).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    use Outcome::{Fail, Pass, Skip};

    fn compared(now: &[(&str, Outcome)], passed: &[&str], accepted: &str) -> Vec<String> {
        let now = now.iter().map(|(t, o)| ((*t).to_owned(), *o)).collect();
        let passed = passed.iter().map(|t| ((*t).to_owned(), "abc".to_owned())).collect();
        let (accepted, findings) = Accepted::parse(accepted);
        assert_eq!(findings, []);
        compare(&now, &passed, &accepted).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_passed_passes() {
        assert_eq!(compared(&[("TestA", Pass), ("TestB", Fail)], &["TestA"], ""), [""; 0]);
        let worse = compared(&[("TestA", Fail), ("TestB", Skip)], &["TestA", "TestB", "TestC"], "");
        let path = "tests/complement/results.jsonl";
        let rest = "mend it, or say why in tests/complement/accepted.jsonl";
        assert_eq!(
            worse,
            [
                format!("{path}:1: TestA passed at abc and fails now; {rest}"),
                format!("{path}:2: TestB passed at abc and is skipped now; {rest}"),
                format!("{path}:1: TestC passed at abc and is gone now; {rest}"),
            ]
        );
    }

    #[test]
    fn a_reason_covers_its_test_and_what_went_with_it() {
        let reason = "{\"Test\":\"TestA\",\"Reason\":\"dropped by the suite\"}\n";
        assert_eq!(compared(&[], &["TestA", "TestA/b", "TestA/b/c"], reason), [""; 0]);
        assert_eq!(compared(&[], &["TestAB"], reason).len(), 1);
        assert_eq!(compared(&[("TestA", Fail)], &["TestA"], reason), [""; 0]);
        let still = compared(&[("TestA", Fail), ("TestA/b", Fail)], &["TestA", "TestA/b"], reason);
        assert_eq!(still.len(), 1, "a failing subtest needs its own reason: {still:?}");
        assert_eq!(compared(&[("TestA", Fail)], &["TestA/b"], reason).len(), 1);
    }

    #[test]
    fn a_reason_ends_when_the_test_passes() {
        let reason = "{\"Test\":\"TestA\",\"Reason\":\"r\"}\n";
        let found = compared(&[("TestA", Pass)], &["TestA"], reason);
        assert_eq!(found, ["tests/complement/accepted.jsonl:1: TestA passes; remove this line"]);
    }

    #[test]
    fn a_reason_has_words() {
        for line in ["{\"Test\":\"TestA\",\"Reason\":\" \"}", "{\"Test\":\"TestA\"}", "x", ""] {
            assert_eq!(Accepted::parse(&format!("{line}\n")).1.len(), 1, "{line}");
        }
        let twice = "{\"Test\":\"TestA\",\"Reason\":\"r\"}\n".repeat(2);
        assert_eq!(Accepted::parse(&twice).1.len(), 1);
    }
}
