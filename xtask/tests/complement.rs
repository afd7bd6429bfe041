//! The record of Complement: as it is in this tree, and as it grows in a small one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xtask::complement::{RESULTS, RUNS, check, record};

#[test]
fn the_record_of_this_tree_holds() {
    let report = check::run(&xtask::root()).unwrap();
    let lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// A repository of its own, with one commit.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        let tree = Self(root);
        tree.git(&["init", "--quiet"]);
        fs::write(tree.0.join("code"), "one\n").unwrap();
        tree.commit();
        tree
    }

    fn git(&self, words: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(["-c", "commit.gpgsign=false", "-c", "core.hooksPath="])
            .args(words)
            .current_dir(&self.0)
            .status()
            .unwrap();
        assert!(status.success(), "git {words:?}");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
    }

    /// Records a run with these ends of tests.
    fn record(&self, ends: &[(&str, &str)], words: &[&str]) -> Result<String, String> {
        let text: String = ends
            .iter()
            .map(|(action, test)| format!("{{\"Action\":\"{action}\",\"Test\":\"{test}\"}}\n"))
            .collect();
        let file = self.0.with_extension("json");
        fs::write(&file, text).unwrap();
        let mut words = words.to_vec();
        words.push(file.to_str().unwrap());
        record::run(&self.0, &record::Options::parse(&words)?)
    }

    fn findings(&self) -> Vec<String> {
        check::run(&self.0).unwrap().findings.iter().map(|f| f.text.clone()).collect()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

#[test]
fn a_regression_is_found_before_and_after_its_commit() {
    let tree = Tree::new("regression");
    tree.record(&[("pass", "TestA/b"), ("pass", "TestA"), ("fail", "TestB")], &[]).unwrap();
    assert_eq!(tree.findings(), [""; 0]);
    tree.commit();

    tree.record(&[("fail", "TestA/b"), ("fail", "TestA")], &[]).unwrap();
    let found = tree.findings();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("fails now"), "{found:?}");
    tree.commit();
    assert_eq!(tree.findings(), found, "a commit does not make it good");

    tree.record(&[("pass", "TestB")], &[]).unwrap();
    tree.commit();
    assert_eq!(tree.findings(), found, "nor does a later one");

    tree.record(&[("pass", "TestA/b"), ("pass", "TestA")], &[]).unwrap();
    assert_eq!(tree.findings(), [""; 0]);
    let expected = ["TestA", "TestA/b", "TestB"]
        .map(|test| format!("{{\"Action\":\"pass\",\"Test\":\"{test}\"}}\n"));
    assert_eq!(tree.read(RESULTS), expected.concat());
    assert_eq!(tree.read(RUNS).lines().count(), 4);
}

#[test]
fn a_run_names_the_commit_that_it_tested() {
    let tree = Tree::new("dirty");
    fs::write(tree.0.join("code"), "two\n").unwrap();
    let refused = tree.record(&[("pass", "TestA")], &[]).unwrap_err();
    assert!(refused.contains("--dirty"), "{refused}");
    assert!(!tree.0.join(RESULTS).exists());

    tree.record(&[("pass", "TestA")], &["--dirty"]).unwrap();
    assert!(tree.read(RUNS).contains(r#""dirty":true"#));
    tree.commit();
    tree.record(&[("pass", "TestA")], &[]).unwrap();
    tree.record(&[("pass", "TestB")], &[]).expect("an uncommitted record is no obstacle");
    assert_eq!(tree.read(RUNS).matches("dirty").count(), 1);
}

#[test]
fn without_history_the_form_is_checked() {
    let whole = Tree::new("whole");
    whole.record(&[("pass", "TestA")], &[]).unwrap();
    whole.commit();
    whole.record(&[("fail", "TestA")], &[]).unwrap();
    whole.commit();
    assert_eq!(whole.findings().len(), 1);

    let shallow = whole.0.with_file_name("shallow");
    if shallow.exists() {
        fs::remove_dir_all(&shallow).unwrap();
    }
    let url = format!("file://{}", whole.0.display());
    whole.git(&["clone", "--quiet", "--depth", "1", &url, shallow.to_str().unwrap()]);
    let report = check::run(&shallow).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.notes[0].contains("shallow"), "{:?}", report.notes);

    fs::write(shallow.join(RESULTS), "nonsense\n").unwrap();
    assert_eq!(check::run(&shallow).unwrap().findings.len(), 1);
}

#[test]
fn a_file_without_tests_is_no_run() {
    let tree = Tree::new("empty");
    let refused = tree.record(&[("run", "TestA")], &[]).unwrap_err();
    assert!(refused.contains("no test ended"), "{refused}");
    assert_eq!(tree.findings(), [""; 0]);
}
