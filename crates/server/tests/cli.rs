//! The binary as an operator meets it: output, words and exit codes.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

struct Host(tempfile::TempDir);

impl Host {
    /// A folder with a configuration whose data folder is inside it.
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let data = host.0.path().join("data");
        host.configure(&format!("[server]\nname = \"a.example\"\n[store]\npath = {data:?}\n"));
        host
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("exeunt.toml")
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_exeunt"))
            .args(words)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn expect(&self, words: &[&str], input: &str, code: i32) -> String {
        let output = self.run(words, input);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
        assert!(!err.contains("panicked") && !err.contains("backtrace"), "{err}");
        if code == 0 { out } else { format!("{out}{err}") }
    }
}

#[test]
fn the_example_and_the_version_need_nothing() {
    let host = Host::new();
    let example = host.expect(&["config", "example"], "", 0);
    assert!(example.contains("[server]\n"));
    let version = host.expect(&["--version"], "", 0);
    assert_eq!(version, format!("exeunt {}\n", env!("CARGO_PKG_VERSION")));
    host.expect(&["dance"], "", 2);
}

#[test]
fn a_configuration_can_be_checked() {
    let host = Host::new();
    assert_eq!(host.expect(&["config", "check"], "", 0), "exeunt.toml: ok\n");
    host.configure("[server]\nname = \"a.example\"\nnmae = \"b\"\n");
    let words = host.expect(&["config", "check"], "", 2);
    let expected = "exeunt.toml: there is no option `server.nmae`; did you mean `server.name`?\n";
    assert_eq!(words, expected);
    let words = host.expect(&["config", "check", "--config", "none.toml"], "", 2);
    assert!(words.starts_with("none.toml: cannot be read"), "{words}");
}

#[test]
fn accounts_are_created_and_the_store_verifies() {
    let host = Host::new();
    let create = ["user", "create", "--name", "alice"];
    let made = host.expect(&create, "", 0);
    let (user, password) = made.split_once('\n').unwrap();
    assert_eq!(user, "@alice:a.example");
    assert_eq!(password.len(), "password: \n".len() + 24);
    let again = host.expect(&create, "", 1);
    assert_eq!(again, "@alice:a.example is taken\n");

    let given = ["user", "create", "--name", "bob", "--admin", "--password-stdin"];
    assert_eq!(host.expect(&given, "correct horse battery\n", 0), "@bob:a.example\n");
    let empty = ["user", "create", "--name", "carol", "--password-stdin"];
    assert!(host.expect(&empty, "", 1).contains("no password"));

    let verified = host.expect(&["store", "verify"], "", 0);
    assert!(verified.ends_with("rows, all well\n"), "{verified}");
    let collected = host.expect(&["store", "collect"], "", 0);
    assert_eq!(collected, "0 state nodes deleted, 0 kept\n");
    for (words, nothing) in [
        (vec!["departures"], "no departure is waiting"),
        (vec!["invites"], "no invite is waiting"),
        (vec!["timeline", "!r:a.example"], "no membership change is known"),
        (vec!["timeline", "!r:a.example", "@alice:a.example"], "no membership change is known"),
        (
            vec!["signatures", "--purpose", "join", "--peer", "b.example"],
            "no such signature was made",
        ),
    ] {
        assert_eq!(host.expect(&words, "", 0), format!("{nothing}\n"));
        assert_eq!(host.expect(&[words, vec!["--json"]].concat(), "", 0), "");
    }
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let host = Host::new();
    for words in [["store", "verify"], ["store", "collect"], ["departures", "--json"]] {
        let found = host.expect(&words, "", 3);
        assert!(found.contains("there is no database; correct store.path"), "{found}");
    }
    assert!(!host.0.path().join("data").exists());
}

#[test]
fn a_store_in_use_says_so() {
    let host = Host::new();
    let database = exeunt_server::app::database(&host.0.path().join("data"));
    let store = exeunt_store::Store::open(&database).unwrap();
    let found = host.expect(&["user", "create", "--name", "alice"], "", 3);
    assert!(found.contains("is in use by another process; stop the server first"), "{found}");
    store.close();
}

#[test]
fn a_damaged_store_says_so() {
    let host = Host::new();
    host.expect(&["user", "create", "--name", "alice"], "", 0);
    let database = exeunt_server::app::database(&host.0.path().join("data"));
    fs::remove_file(database.join("CURRENT")).unwrap();
    let found = host.expect(&["store", "verify"], "", 3);
    assert!(found.contains("is damaged") && found.contains("restore a backup"), "{found}");
}
