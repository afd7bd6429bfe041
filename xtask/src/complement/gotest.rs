//! What `go test -json` prints.

use std::collections::BTreeSet;

use serde_json::Value;

use super::results::{Outcome, Results, top_level};

/// One run of the suite, or of several of its packages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How each test ended.
    pub results: Results,
    /// Top-level tests that began and did not end: the run was cut short in them.
    pub unfinished: BTreeSet<String>,
    /// Lines that are not the runner's, such as those of a compiler.
    pub foreign: usize,
}

impl Run {
    /// Top-level tests that this run says something about.
    pub fn tests(&self) -> BTreeSet<&str> {
        let ended = self.results.keys().map(|test| top_level(test));
        ended.chain(self.unfinished.iter().map(String::as_str)).collect()
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.results.values().filter(|o| **o == outcome).count()
    }
}

/// Reads the lines; a broken one means that the file is not whole.
pub fn parse(text: &str) -> Result<Run, String> {
    let mut run = Run::default();
    let mut open = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        if !line.starts_with('{') {
            run.foreign += usize::from(!line.is_empty());
            continue;
        }
        let event: Value = serde_json::from_str(line).map_err(|error| {
            format!("line {}: not what go test -json prints: {error}", index + 1)
        })?;
        let word = |key: &str| event.get(key).and_then(Value::as_str);
        // Without `Test` it is about the package.
        let (Some(action), Some(test)) = (word("Action"), word("Test")) else { continue };
        let place = (word("Package").unwrap_or_default().to_owned(), test.to_owned());
        if let Some(outcome) = Outcome::of_action(action) {
            open.remove(&place);
            let known = run.results.entry(place.1).or_insert(outcome);
            *known = outcome.max(*known);
        } else if action == "run" {
            open.insert(place);
        }
    }
    run.unfinished = open.into_iter().map(|(_, test)| test).filter(|t| !t.contains('/')).collect();
    let cut = &run.unfinished;
    run.results.retain(|test, _| !cut.contains(top_level(test)));
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, package: &str, test: &str) -> String {
        format!("{{\"Action\":\"{action}\",\"Package\":\"{package}\",\"Test\":\"{test}\"}}\n")
    }

    #[test]
    fn ends_of_tests_are_kept() {
        let text = "{\"Time\":\"2026-01-01T00:00:00Z\",\"Action\":\"start\",\"Package\":\"p\"}\n\
            {\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"TestA\"}\n\
            {\"Action\":\"output\",\"Package\":\"p\",\"Test\":\"TestA\",\"Output\":\"--- FAIL\\n\"}\n\
            {\"Action\":\"fail\",\"Package\":\"p\",\"Test\":\"TestA/b\",\"Elapsed\":0.1}\n\
            {\"Action\":\"fail\",\"Package\":\"p\",\"Test\":\"TestA\",\"Elapsed\":0.2}\n\
            {\"Action\":\"fail\",\"Package\":\"p\",\"Elapsed\":0.3}\n\
            exit status 1\n";
        let run = parse(text).unwrap();
        let expected = [("TestA", Outcome::Fail), ("TestA/b", Outcome::Fail)];
        assert_eq!(run.results, expected.map(|(t, o)| (t.to_owned(), o)).into());
        assert_eq!(run.unfinished, BTreeSet::new());
        assert_eq!(run.foreign, 1);
        assert_eq!((run.count(Outcome::Fail), run.count(Outcome::Pass)), (2, 0));
    }

    #[test]
    fn of_several_ends_the_worst_holds() {
        for order in [["pass", "fail"], ["fail", "pass"], ["fail", "skip"]] {
            let text = event(order[0], "p", "TestA") + &event(order[1], "q", "TestA");
            assert_eq!(parse(&text).unwrap().results["TestA"], Outcome::Fail);
        }
        let text = event("pass", "p", "TestA") + &event("skip", "q", "TestA");
        assert_eq!(parse(&text).unwrap().results["TestA"], Outcome::Pass);
    }

    #[test]
    fn a_test_that_did_not_end_has_no_outcome() {
        let text = event("run", "p", "TestA")
            + &event("run", "p", "TestA/b")
            + &event("pass", "p", "TestA/b")
            + &event("run", "p", "TestC")
            + &event("pass", "p", "TestC");
        let run = parse(&text).unwrap();
        assert_eq!(run.results.keys().collect::<Vec<_>>(), ["TestC"]);
        assert_eq!(run.unfinished, ["TestA".to_owned()].into());
        assert_eq!(run.tests(), ["TestA", "TestC"].into());
    }

    #[test]
    fn a_file_that_is_not_whole_is_refused() {
        let error = parse("\n{\"Action\":\"pa").unwrap_err();
        assert!(error.starts_with("line 2: not what go test -json prints"), "{error}");
    }
}
