//! Server ACLs, one table row per rule of the specification.

use exeunt_acl::ServerAcl;
use exeunt_core::ruma::ServerName;
use serde_json::{Value, json};

#[track_caller]
fn check(content: &Value, allowed: &[&str], denied: &[&str]) {
    let acl = ServerAcl::compile(content.as_object().unwrap());
    let allows = |name: &str| acl.allows(<&ServerName>::try_from(name).unwrap());
    for name in allowed {
        assert!(allows(name), "{name} must be allowed by {content}");
    }
    for name in denied {
        assert!(!allows(name), "{name} must be denied by {content}");
    }
}

#[test]
fn order_of_the_rules() {
    // An IP literal is denied before anything can allow it.
    let content = json!({ "allow": ["*", "1.2.3.4"], "allow_ip_literals": false });
    check(&content, &["a.example"], &["1.2.3.4"]);
    // Deny beats allow.
    check(&json!({ "allow": ["a.example"], "deny": ["a.example"] }), &[], &["a.example"]);
    check(&json!({ "allow": ["*"], "deny": ["*"] }), &[], &["a.example"]);
    // What nothing allows is denied.
    check(&json!({ "allow": ["a.example"] }), &["a.example"], &["b.example"]);
}

#[test]
fn ports_do_not_count() {
    let content = json!({ "allow": ["*"], "deny": ["evil.com"] });
    check(&content, &["evil.com.example:8448"], &["evil.com", "evil.com:8448", "evil.com:1"]);
    // So a pattern that names a port matches nobody.
    check(&json!({ "allow": ["a.example:8448"] }), &[], &["a.example", "a.example:8448"]);
    let content = json!({ "allow": ["*"], "deny": ["[::1]", "1.2.3.4"] });
    check(&content, &["[::2]:1"], &["[::1]:8448", "1.2.3.4:80"]);
}

#[test]
fn ip_literals() {
    let literals = ["1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:8448", "[2001:db8::A]"];
    let names = ["1.2.3.4.example", "1.2.3", "a.example:80", "xn--bcher-kva.example"];
    let denying = json!({ "allow": ["*"], "allow_ip_literals": false });
    check(&denying, &names, &literals);
    for lax in [json!(true), json!("false"), json!(0), json!(null), json!([]), json!({})] {
        let content = json!({ "allow": ["*"], "allow_ip_literals": lax });
        check(&content, &literals, &[]);
    }
    check(&json!({ "allow": ["*"] }), &literals, &[]);
    check(&json!({ "allow": ["[2001:DB8::*]"] }), &["[2001:db8::A]:80"], &["[2001:db9::a]"]);
}

#[test]
fn globs_match_the_whole_name() {
    let content = json!({ "allow": ["*"], "deny": ["*.evil.com", "b?d.example", "x*y*z"] });
    let denied = ["a.evil.com", "a.b.evil.com:1", "bad.example", "b-d.example", "xyz", "x.y.z"];
    let allowed = ["evil.com", "notevil.com", "a.evil.com.example", "bd.example", "xyz.a", "axyz"];
    check(&content, &allowed, &denied);
    // A dot is a dot, a bracket a bracket: nothing else is special.
    let content = json!({ "allow": ["a.b", "[ab].example", "a+", ".*", "(a|b)"] });
    check(&content, &["a.b", ".c"], &["axb", "a.example", "aa", "b"]);
}

#[test]
fn case_does_not_count() {
    let content = json!({ "allow": ["*"], "deny": ["EVIL.com", "*.Bad.Example"] });
    check(&content, &["good.example"], &["evil.com", "Evil.COM", "a.BAD.example"]);
    check(&json!({ "allow": ["good.example"] }), &["GOOD.example"], &[]);
}

#[test]
fn missing_or_malformed_closes_field_by_field() {
    let nobody = ["a.example", "1.2.3.4"];
    check(&json!({}), &[], &nobody);
    check(&json!({ "allow": [] }), &[], &nobody);
    check(&json!({ "deny": [] }), &[], &nobody);
    for wrong in [json!("*"), json!({ "0": "*" }), json!(null), json!(true), json!(1)] {
        check(&json!({ "allow": wrong }), &[], &nobody);
        check(&json!({ "allow": ["*"], "deny": wrong }), &nobody, &[]);
    }
    let mixed = json!([1, null, "a.example", ["b.example"], { "c.example": true }]);
    check(&json!({ "allow": mixed }), &["a.example"], &["b.example", "c.example"]);
    check(&json!({ "allow": ["*"], "deny": mixed }), &["b.example"], &["a.example"]);
    check(&json!({ "allow": [""] }), &[], &nobody);
}

/// CVE-2023-45129.
#[test]
fn the_largest_hostile_acl_still_answers() {
    let hard = format!("{}b", "*a?".repeat(60));
    let globs: Vec<_> = (0..300).map(|i| format!("{i}{hard}")).chain([hard.clone()]).collect();
    let content = json!({ "allow": ["*"], "deny": globs });
    let name = "a".repeat(255);
    check(&content, &[&name], &[&format!("{}b", "a".repeat(254))]);
    let stars = "*".repeat(60_000);
    check(&json!({ "allow": [stars] }), &["a.example"], &[]);
}
