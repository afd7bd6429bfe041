//! `exeunt health`, and the commands that a running server carries out.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

const BIND: &str = "EXEUNT__LISTENERS__0__BIND";

/// A server on a free port, killed in the end.
struct Running {
    folder: tempfile::TempDir,
    server: Child,
    address: String,
}

impl Running {
    fn start(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut text =
            format!("[server]\nname = \"a.example\"\n[store]\npath = {:?}\n", path("data"));
        text += "[[listeners]]\nbind = \"127.0.0.1:0\"\n";
        if tls {
            text += &format!("certificate = {:?}\nkey = {:?}\n", path("cert.pem"), path("key.pem"));
        }
        fs::write(path("exeunt.toml"), text).unwrap();
        certify(&folder);
        let created = command(&folder).args(["user", "create", "--name", "bob"]).output().unwrap();
        assert!(created.status.success(), "{created:?}");
        let mut server = command(&folder)
            .args(["serve"])
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(server.stderr.take().unwrap());
        let address = log
            .lines()
            .map(Result::unwrap)
            .find_map(|line| line.split_once("address=").map(|(_, rest)| rest.trim().to_owned()))
            .expect("the log says where it listens");
        Self { folder, server, address }
    }

    fn run(&self, words: &str) -> (Option<i32>, String) {
        said(command(&self.folder).args(words.split(' ')).output().unwrap())
    }

    fn health(&self) -> (Option<i32>, String) {
        let mut health = command(&self.folder);
        said(health.arg("health").env(BIND, &self.address).output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn command(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_exeunt")));
    command.current_dir(folder.path());
    command
}

/// Writes a certificate that no authority has signed, and its key.
fn certify(folder: &tempfile::TempDir) {
    let certified = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
}

fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_server_that_answers_is_well() {
    for tls in [false, true] {
        assert_eq!(Running::start(tls).health(), (Some(0), "ok\n".to_owned()), "TLS: {tls}");
    }
}

#[test]
fn a_server_that_is_gone_is_not() {
    let mut running = Running::start(false);
    running.server.kill().unwrap();
    running.server.wait().unwrap();
    let (code, text) = running.health();
    assert_eq!(code, Some(1));
    assert!(text.contains("no answer: Connection refused"), "{text}");
}

#[test]
fn a_certificate_that_was_renewed_without_a_restart_is_named() {
    let running = Running::start(true);
    certify(&running.folder);
    let (code, text) = running.health();
    assert_eq!(code, Some(1));
    assert!(text.contains("it shows another certificate than"), "{text}");
    assert!(text.contains("restart it to use the new one"), "{text}");
}

#[test]
fn the_running_server_carries_commands_out() {
    let mut running = Running::start(false);
    let socket = running.folder.path().join("data/operator");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o700);
    for (words, code, expected) in [
        (
            "invites triage --server *.spam.example --older-than 2h --newer-than 3h",
            0,
            "0 invites match; nothing",
        ),
        ("invites triage --silent", 0, "0 invites match; 0 are turned down"),
        ("invites triage --silent --reject", 2, "cannot be used with"),
        ("invites triage --older-than soon", 2, "a whole number with its unit"),
        ("room delete !none:a.example --reason bye", 1, "Unknown room"),
        ("room leave !none:a.example @bob:a.example", 1, "not in the room"),
        ("departures abandon @bob:a.example !none:a.example", 1, "No such departure"),
        ("user departure @bob:a.example", 1, "No departure from everywhere"),
        ("user deactivate @bob:a.example --erase", 0, "@bob:a.example is closed, 0 of 0 rooms"),
        ("user departure @bob:a.example", 0, "@bob:a.example: 0 of 0 rooms, invites and knocks"),
        ("user departure @bob:a.example --json", 0, "\"total\":0"),
        ("invites", 0, "no invite is waiting"),
        ("registration-token list", 0, "there is no registration token\n"),
        ("registration-token create --token friends --uses 3", 0, "friends: used 0 of 3 times\n"),
        (
            "registration-token create --token friends",
            1,
            "there is such a registration token already",
        ),
        ("registration-token create --expires-in 7d", 0, ": used 0 times, until 2"),
        ("registration-token create --expires-in soon", 2, "a whole number with its unit"),
        ("registration-token list", 0, "friends: used 0 of 3 times\n"),
        ("registration-token list --json", 0, "\"token\":\"friends\""),
        ("registration-token delete a/b", 1, "No such registration token"),
        ("registration-token delete friends", 0, "friends is deleted\n"),
        ("registration-token delete friends", 1, "No such registration token"),
    ] {
        let (got, text) = running.run(words);
        assert_eq!(got, Some(code), "{words}: {text}");
        assert!(text.contains(expected), "{words}: {text}");
    }
    running.server.kill().unwrap();
    running.server.wait().unwrap();
    let (code, text) = running.run("user deactivate @bob:a.example");
    assert_eq!(code, Some(1));
    assert!(text.contains("this command is carried out by the running server"), "{text}");
}
