//! Server ACLs beside a matcher that follows the definition. The first line of the input is the
//! server, the others are globs, denied after a `-`; a line `ip` forbids IP literals.

#![no_main]

use exeunt_acl::ServerAcl;
use exeunt_core::{Object, ruma::ServerName};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// Longest pattern for the reference, which takes time in proportion to pattern and name.
const MAX_PATTERN: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let Some(Ok(server)) = lines.next().map(<&ServerName>::try_from) else { return };
    let (mut allow, mut deny, mut ip) = (Vec::new(), Vec::new(), true);
    for line in lines {
        match line.strip_prefix('-') {
            _ if line == "ip" => ip = false,
            Some(glob) => deny.push(glob),
            None => allow.push(glob_or_all(line)),
        }
    }
    let content = json!({ "allow": allow, "deny": deny, "allow_ip_literals": ip });
    let allows = ServerAcl::compile(&object(content)).allows(server);
    if allow.iter().chain(&deny).all(|glob| glob.len() <= MAX_PATTERN) {
        let host = server.host();
        let hit = |globs: &[&str]| globs.iter().any(|glob| matches(glob, host));
        let expected = (ip || !server.is_ip_literal()) && !hit(&deny) && hit(&allow);
        assert_eq!(allows, expected, "{server} allow {allow:?} deny {deny:?} ip {ip}");
    }
    // Content as it may come: nothing but lists of strings allows anyone.
    let odd = object(json!({ "allow": text, "deny": [allow, 1], "allow_ip_literals": text }));
    assert!(!ServerAcl::compile(&odd).allows(server));
});

/// An empty line stands for everyone, so that small inputs reach the deny list.
fn glob_or_all(line: &str) -> &str {
    if line.is_empty() { "*" } else { line }
}

/// The definition: row by row of the pattern, which positions of the name can be reached.
fn matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for byte in glob {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            next[at] = match byte {
                b'*' => reached[at] || at > 0 && next[at - 1],
                b'?' => at > 0 && reached[at - 1],
                byte => at > 0 && reached[at - 1] && byte.eq_ignore_ascii_case(&name[at - 1]),
            };
        }
        reached = next;
    }
    reached[name.len()]
}

fn object(value: Value) -> Object {
    value.as_object().cloned().expect("an object")
}
