//! Compiles a server ACL (`m.room.server_acl`) into a value and answers allow or deny.
//!
//! Client-server API, "Server Access Control Lists (ACLs) for rooms". Pure. A room without the
//! event allows everyone: then there is nothing to compile, and the caller allows.

mod glob;

use exeunt_core::Object;
use exeunt_core::ruma::ServerName;
use serde_json::Value;

pub use glob::{Glob, MAX_HOST_BYTES, Name};

/// A compiled ACL. Compile once per ACL event, ask for every request.
///
/// Malformed content closes, field by field: what is not a list is an empty list, what is not a
/// string in a list is skipped, and who matches nothing is denied.
#[derive(Debug, Clone)]
pub struct ServerAcl {
    allow: Vec<Glob>,
    deny: Vec<Glob>,
    allow_ip_literals: bool,
}

impl ServerAcl {
    /// Compiles the content of an `m.room.server_acl` event. A redacted one is empty: it denies
    /// every server.
    pub fn compile(content: &Object) -> Self {
        Self {
            allow: globs(content.get("allow")),
            deny: globs(content.get("deny")),
            allow_ip_literals: content.get("allow_ip_literals") != Some(&Value::Bool(false)),
        }
    }

    /// Whether the server may take part. Its port does not count, nor does upper or lower case.
    pub fn allows(&self, server: &ServerName) -> bool {
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let Some(name) = Name::new(server.host()) else {
            return false;
        };
        let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&name));
        !matches(&self.deny) && matches(&self.allow)
    }
}

fn globs(list: Option<&Value>) -> Vec<Glob> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    let mut globs: Vec<_> = entries.filter_map(Value::as_str).filter_map(Glob::compile).collect();
    globs.sort_unstable();
    globs.dedup();
    globs
}
