//! Registration files of application services, from the configuration to a request.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// As Complement writes it (`internal/docker/builder.go`).
const COMPLEMENT: &str = "\
id: my_as_id
hs_token: 5f1c2e
as_token: 3a9d0b
url: 'http://localhost:9000'
sender_localpart: the-bridge-user
rate_limited: false
de.sorunome.msc2409.push_ephemeral: false
push_ephemeral: false
org.matrix.msc3202: false
namespaces:
  users:
    - exclusive: false
      regex: .*
  rooms: []
  aliases: []
";

/// A folder with a configuration that names `service.yaml`.
struct Host(tempfile::TempDir);

impl Host {
    fn new(registration: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let (data, file) = (host.path("data"), host.path("service.yaml"));
        let text = format!(
            "[server]\nname = \"a.example\"\n[store]\npath = {data:?}\n\
             [[listeners]]\nbind = \"127.0.0.1:0\"\n[app_services]\nfiles = [{file:?}]\n"
        );
        fs::write(host.path("exeunt.toml"), text).unwrap();
        fs::write(file, registration).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
        command.args(words).current_dir(self.0.path()).env("NO_COLOR", "1");
        command
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn get(address: &str, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_service_of_a_file_has_its_user_and_its_token() {
    let host = Host::new(COMPLEMENT);
    let mut server = host.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(server.stderr.take().unwrap());
    let _running = Running(server);
    let address = log
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("address=").map(|(_, rest)| rest.trim().to_owned()))
        .expect("the log says where it listens");
    let whoami = get(&address, "/_matrix/client/v3/account/whoami", "3a9d0b");
    assert!(whoami.contains("\"user_id\":\"@the-bridge-user:a.example\""), "{whoami}");
    let whoami = get(&address, "/_matrix/client/v3/account/whoami", "5f1c2e");
    assert!(whoami.starts_with("HTTP/1.1 401 "), "{whoami}");
}

#[test]
fn a_file_that_is_wrong_is_named_and_its_secrets_are_not() {
    let secret = "3a9d0b";
    for (registration, expected) in [
        ("id: [", "service.yaml: is not YAML: "),
        ("- id: x\n", "service.yaml: is not YAML: "),
        (&*COMPLEMENT.replace("as_token: 3a9d0b\n", ""), "service.yaml: missing "),
        (&*COMPLEMENT.replace("regex: .*", "regex: '('"), "application service \"my_as_id\": "),
    ] {
        let host = Host::new(registration);
        for command in ["check", "serve"] {
            let words: &[&str] = if command == "check" { &["config", "check"] } else { &["serve"] };
            let output = host.command(words).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(expected) && !text.contains(secret), "{text}");
        }
    }
    let host = Host::new(COMPLEMENT);
    fs::remove_file(host.path("service.yaml")).unwrap();
    let output = host.command(&["config", "check"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("`app_services.files`: ") && text.contains("cannot be read"), "{text}");
}
