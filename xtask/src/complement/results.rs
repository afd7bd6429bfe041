//! `results.jsonl`: one line a test, as Go's test runner names it, sorted by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::RESULTS;
use crate::tidy::Finding;

/// How a test ended. The order is how much it says: of several ends of one test, the greatest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Skip,
    Pass,
    Fail,
}

impl Outcome {
    /// The outcome that an `Action` of Go's test runner means, if it means one.
    pub fn of_action(action: &str) -> Option<Self> {
        match action {
            "pass" => Some(Self::Pass),
            "fail" => Some(Self::Fail),
            "skip" => Some(Self::Skip),
            _ => None,
        }
    }

    pub fn action(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// The outcome of every test, by name.
pub type Results = BTreeMap<String, Outcome>;

/// `TestX` for `TestX/sub/more`.
pub fn top_level(test: &str) -> &str {
    test.split('/').next().unwrap_or(test)
}

/// The test's direct parent by name. A `/` may be part of a subtest's own name, so it need not exist.
pub fn parent(test: &str) -> Option<&str> {
    test.rsplit_once('/').map(|(parent, _)| parent)
}

/// One line, without its end.
pub fn line(test: &str, outcome: Outcome) -> String {
    format!(r#"{{"Action":"{}","Test":{}}}"#, outcome.action(), json!(test))
}

pub fn render(results: &Results) -> String {
    results.iter().map(|(test, outcome)| line(test, *outcome) + "\n").collect()
}

/// A line of the file, read leniently.
pub fn parse_line(text: &str) -> Option<(String, Outcome)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let outcome = Outcome::of_action(value.get("Action")?.as_str()?)?;
    let test = value.get("Test")?.as_str()?;
    (!test.is_empty()).then(|| (test.to_owned(), outcome))
}

/// The file with everything that is wrong about its form.
pub fn parse(text: &str) -> (Results, Vec<Finding>) {
    let mut results = Results::new();
    let mut findings = Vec::new();
    let mut find = |line: usize, text: String| findings.push(Finding::new(RESULTS, line, text));
    let mut previous = String::new();
    for (index, written) in text.lines().enumerate() {
        let number = index + 1;
        let Some((test, outcome)) = parse_line(written) else {
            find(number, r#"is not `{"Action":"pass|fail|skip","Test":"…"}`"#.into());
            continue;
        };
        if written != line(&test, outcome) {
            find(number, format!("is not written as `{}`", line(&test, outcome)));
        }
        if results.insert(test.clone(), outcome).is_some() {
            find(number, format!("{test} is recorded twice"));
        } else if test < previous {
            find(number, format!("{test} is not sorted: it belongs before {previous}"));
        }
        previous = test;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        find(text.lines().count(), "the last line is cut short: no line end".into());
    }
    for (index, written) in text.lines().enumerate() {
        let Some((test, outcome)) = parse_line(written) else { continue };
        findings.extend(family(&results, &test, outcome, index + 1));
    }
    findings.sort();
    (results, findings)
}

/// Go fails every parent of a failing subtest, and ends no subtest without its test.
fn family(results: &Results, test: &str, outcome: Outcome, line: usize) -> Option<Finding> {
    let top = top_level(test);
    if !results.contains_key(top) {
        return Some(Finding::new(RESULTS, line, format!("{test} is recorded without {top}")));
    }
    let spared = [parent(test)?, top].into_iter().find(|ancestor| {
        outcome == Outcome::Fail && results.get(*ancestor).is_some_and(|o| *o != Outcome::Fail)
    })?;
    Some(Finding::new(RESULTS, line, format!("{test} fails, and its parent {spared} does not")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        parse(text).1.iter().map(|f| format!("{}: {}", f.line, f.text)).collect()
    }

    #[test]
    fn what_is_rendered_parses() {
        let results = Results::from([
            ("TestA".into(), Outcome::Fail),
            ("TestA/\"quoted\"_<&>".into(), Outcome::Fail),
            ("TestA/b".into(), Outcome::Skip),
            ("TestB".into(), Outcome::Pass),
        ]);
        let text = render(&results);
        assert!(text.starts_with("{\"Action\":\"fail\",\"Test\":\"TestA\"}\n"), "{text}");
        assert_eq!(parse(&text), (results, Vec::new()));
        assert_eq!(findings(""), [""; 0]);
    }

    #[test]
    fn the_form_is_exact() {
        let spaced = "{\"Action\": \"pass\", \"Test\": \"TestA\"}\n";
        assert!(findings(spaced)[0].starts_with("1: is not written as"));
        let more = "{\"Action\":\"pass\",\"Test\":\"TestA\",\"Elapsed\":1}\n";
        assert!(findings(more)[0].starts_with("1: is not written as"));
        assert!(
            findings("{\"Action\":\"run\",\"Test\":\"TestA\"}\n")[0].starts_with("1: is not `{")
        );
        assert!(findings("nonsense\n")[0].starts_with("1: is not `{"));
        assert_eq!(findings(&line("TestA", Outcome::Pass)).len(), 1);
    }

    #[test]
    fn lines_are_sorted_and_unique() {
        let of = |tests: &[&str]| {
            tests.iter().map(|t| line(t, Outcome::Pass) + "\n").collect::<String>()
        };
        assert_eq!(findings(&of(&["TestA", "TestA/b", "TestAB"])), [""; 0]);
        assert_eq!(findings(&of(&["TestB", "TestA"])).len(), 1);
        assert_eq!(findings(&of(&["TestB", "TestB"])), ["2: TestB is recorded twice"]);
    }

    #[test]
    fn a_failing_subtest_has_a_failing_parent() {
        let of = |lines: &[(&str, Outcome)]| {
            lines.iter().map(|(t, o)| line(t, *o) + "\n").collect::<String>()
        };
        use Outcome::{Fail, Pass, Skip};
        let whole = of(&[("TestA", Fail), ("TestA/b", Fail), ("TestA/b/c", Fail)]);
        assert_eq!(findings(&whole), [""; 0]);
        let spared = of(&[("TestA", Pass), ("TestA/b", Fail)]);
        assert_eq!(findings(&spared), ["2: TestA/b fails, and its parent TestA does not"]);
        let middle = of(&[("TestA", Fail), ("TestA/b", Skip), ("TestA/b/c", Fail)]);
        assert_eq!(findings(&middle), ["3: TestA/b/c fails, and its parent TestA/b does not"]);
        let slash = of(&[("TestA", Fail), ("TestA/GET_/rooms", Fail)]);
        assert_eq!(findings(&slash), [""; 0]);
        assert_eq!(findings(&of(&[("TestA/b", Pass)])), ["1: TestA/b is recorded without TestA"]);
    }
}
