//! Takes in a run of the suite.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use super::{
    RESULTS, RUNS,
    gotest::{self, Run},
    history::git,
    read,
    results::{self, Outcome, Results, top_level},
    write,
};

/// `complement-record FILE …`
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What `go test -json` printed.
    pub file: String,
    /// What the image under test says of its version.
    pub version: Option<String>,
    /// Settings of the image that are not those of `deploy/complement`.
    pub settings: BTreeMap<String, String>,
    pub complement_commit: Option<String>,
    /// The image was built from a tree with changes that are not committed.
    pub dirty: bool,
}

impl Options {
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "--version" => options.version = Some(value()?.into()),
                "--complement-commit" => options.complement_commit = Some(value()?.into()),
                "--dirty" => options.dirty = true,
                "--setting" => {
                    let setting = value()?;
                    let (key, value) =
                        setting
                            .split_once('=')
                            .filter(|(key, _)| !key.is_empty())
                            .ok_or_else(|| format!("--setting {setting}: is not KEY=VALUE"))?;
                    options.settings.insert(key.into(), value.into());
                }
                _ if word.starts_with('-') => return Err(format!("{word} is not an option")),
                _ if options.file.is_empty() => options.file = word.into(),
                _ => return Err(format!("{word}: one FILE at a time")),
            }
        }
        if options.file.is_empty() {
            return Err("complement-record needs the FILE that go test -json printed".into());
        }
        Ok(options)
    }
}

/// Merges a run into the records; returns what it did, in words.
pub fn run(root: &Path, options: &Options) -> Result<String, String> {
    let commit = git(root, &["rev-parse", "HEAD"])?.trim().to_owned();
    let changed = changed(root)?;
    if !changed.is_empty() && !options.dirty {
        return Err(format!(
            "the tree has changes that are not committed, so no commit names what was tested; \
             commit them, build the image and run again, or pass --dirty:\n{changed}"
        ));
    }
    let text = fs::read_to_string(&options.file).map_err(|e| format!("{}: {e}", options.file))?;
    let run = gotest::parse(&text).map_err(|error| format!("{}: {error}", options.file))?;
    if run.results.is_empty() {
        return Err(format!(
            "{}: no test ended in it, so there is nothing to record",
            options.file
        ));
    }
    let known = read(root, RESULTS)?.unwrap_or_default();
    let (known, findings) = results::parse(&known);
    if let Some(finding) = findings.first() {
        return Err(format!("{finding}; mend the record before adding to it"));
    }
    let mut runs = read(root, RUNS)?.unwrap_or_default();
    runs.push_str(&entry(&run, &commit, !changed.is_empty(), options));
    runs.push('\n');
    write(root, RESULTS, &results::render(&merge(known, &run)))?;
    write(root, RUNS, &runs)?;
    Ok(summary(&run))
}

/// What differs from `HEAD` apart from the records themselves, which another run may have changed.
fn changed(root: &Path) -> Result<String, String> {
    let (results, runs) = (format!(":(exclude){RESULTS}"), format!(":(exclude){RUNS}"));
    git(root, &["status", "--porcelain", "--untracked-files=all", "--", ".", &results, &runs])
}

/// The tests of the run in place of what was known of them; the others as they were.
fn merge(mut known: Results, run: &Run) -> Results {
    let replaced = run.tests();
    known.retain(|test, _| !replaced.contains(top_level(test)));
    known.extend(run.results.iter().map(|(test, outcome)| (test.clone(), *outcome)));
    known
}

/// The run's line in `runs.jsonl`.
fn entry(run: &Run, commit: &str, dirty: bool, options: &Options) -> String {
    let mut entry = Map::new();
    entry.insert("commit".into(), json!(commit));
    if let Some(complement) = &options.complement_commit {
        entry.insert("complement".into(), json!(complement));
    }
    let counts: Map<String, Value> = [Outcome::Fail, Outcome::Pass, Outcome::Skip]
        .map(|outcome| (outcome.action().to_owned(), json!(run.count(outcome))))
        .into_iter()
        .collect();
    entry.insert("counts".into(), counts.into());
    if dirty {
        entry.insert("dirty".into(), json!(true));
    }
    entry.insert("settings".into(), json!(options.settings));
    entry.insert("tests".into(), json!(run.tests()));
    if !run.unfinished.is_empty() {
        entry.insert("unfinished".into(), json!(run.unfinished));
    }
    if let Some(version) = &options.version {
        entry.insert("version".into(), json!(version));
    }
    Value::Object(entry).to_string()
}

fn summary(run: &Run) -> String {
    let [pass, fail, skip] =
        [Outcome::Pass, Outcome::Fail, Outcome::Skip].map(|outcome| run.count(outcome));
    let mut text = format!(
        "recorded {} tests with their subtests: {pass} pass, {fail} fail, {skip} skip",
        run.tests().len()
    );
    for test in &run.unfinished {
        text += &format!("\n{test} began and did not end: it has no result now; run it again");
    }
    if run.foreign > 0 {
        text += &format!("\n{} lines were not the test runner's", run.foreign);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(tests: &[(&str, Outcome)]) -> Results {
        tests.iter().map(|(t, o)| ((*t).to_owned(), *o)).collect()
    }

    #[test]
    fn options_are_read() {
        let words = ["out.json", "--version", "0.1.0", "--setting", "a.b=c=d", "--dirty"];
        let options = Options::parse(&words).unwrap();
        assert_eq!(options.file, "out.json");
        assert_eq!(options.version.as_deref(), Some("0.1.0"));
        assert_eq!(options.settings, BTreeMap::from([("a.b".into(), "c=d".into())]));
        assert!(options.dirty);
        let wrong: [&[&str]; 6] = [
            &[],
            &["a", "b"],
            &["a", "--what"],
            &["a", "--version"],
            &["a", "--setting", "b"],
            &["a", "--setting", "=b"],
        ];
        for words in wrong {
            assert!(Options::parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_run_replaces_its_tests_and_leaves_the_others() {
        use Outcome::{Fail, Pass};
        let known = ended(&[
            ("TestA", Fail),
            ("TestA/old", Fail),
            ("TestAB", Pass),
            ("TestB", Pass),
            ("TestCut", Pass),
            ("TestCut/sub", Pass),
        ]);
        let run = Run {
            results: ended(&[("TestA", Pass), ("TestA/new", Pass), ("TestC", Fail)]),
            unfinished: ["TestCut".to_owned()].into(),
            foreign: 0,
        };
        let expected = [
            ("TestA", Pass),
            ("TestA/new", Pass),
            ("TestAB", Pass),
            ("TestB", Pass),
            ("TestC", Fail),
        ];
        assert_eq!(merge(known, &run), ended(&expected));
    }

    #[test]
    fn a_run_says_where_it_came_from() {
        let run = Run {
            results: ended(&[("TestA", Outcome::Pass), ("TestA/b", Outcome::Skip)]),
            ..Run::default()
        };
        let options = Options {
            settings: [("rooms.default_version".into(), "11".into())].into(),
            complement_commit: Some("feed".into()),
            ..Options::default()
        };
        assert_eq!(
            entry(&run, "abc", false, &options),
            r#"{"commit":"abc","complement":"feed","counts":{"fail":0,"pass":1,"skip":1},"settings":{"rooms.default_version":"11"},"tests":["TestA"]}"#
        );
        assert!(entry(&run, "abc", true, &options).contains(r#""dirty":true"#));
    }
}
