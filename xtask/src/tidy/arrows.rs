//! Dependencies between our crates: only the arrows of the design are allowed.

use super::Finding;

const PREFIX: &str = "exeunt-";

/// Who may depend on whom (normal and build dependencies).
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("state-res", &["core"]),
    ("acl", &["core"]),
    ("store", &["core"]),
    ("http", &["core"]),
    ("fed-client", &["core"]),
    ("membership", &["state-res", "core"]),
    ("users", &["store", "core"]),
    ("sender", &["store", "core"]),
    ("room", &["membership", "acl", "store", "state-res", "core"]),
    ("client-api", &["http", "room", "users", "core"]),
    ("fed-api", &["http", "room", "users", "core"]),
    (
        "server",
        &[
            "client-api",
            "fed-api",
            "http",
            "room",
            "users",
            "sender",
            "fed-client",
            "membership",
            "state-res",
            "acl",
            "store",
            "core",
        ],
    ),
];

/// For tests only: they depend on what they like, and nobody depends on them.
const FOR_TESTS: &[&str] = &["sim", "graphs"];

/// `store` for `crates/store/Cargo.toml`.
pub fn crate_of_manifest(path: &str) -> Option<&str> {
    let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
    (!name.contains('/')).then_some(name)
}

/// The arrows in one manifest that are not drawn.
pub fn check(path: &str, crate_name: &str, manifest: &str) -> Vec<Finding> {
    if FOR_TESTS.contains(&crate_name) {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == crate_name) else {
        let text = format!("crate {crate_name} is not in the design; draw it in tidy/arrows.rs");
        return vec![Finding::new(path, 1, text)];
    };
    dependencies(manifest)
        .filter(|(_, name)| !allowed.contains(name))
        .map(|(line, name)| {
            let text = format!(
                "{crate_name} may not depend on {name}; move the code, or change the design by a \
                 decision record"
            );
            Finding::new(path, line, text)
        })
        .collect()
}

/// Our crates that a manifest depends on, outside `dev-dependencies`.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut counts = false;
    manifest.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            // `[dependencies]`, `[target.'…'.dependencies]`, `[dependencies.exeunt-core]`
            let (table, entry) = match header.rsplit_once('.') {
                Some((rest, last)) if last.starts_with(PREFIX) => (rest, Some(last)),
                _ => (header, None),
            };
            let table = table.rsplit('.').next().unwrap_or_default();
            counts = matches!(table, "dependencies" | "build-dependencies");
            let name = entry?.strip_prefix(PREFIX)?;
            return counts.then_some((index + 1, name));
        }
        let name = line.split(['.', '=', ' ']).next()?.trim_matches('"').strip_prefix(PREFIX)?;
        counts.then_some((index + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(crate_name: &str, manifest: &str) -> Vec<usize> {
        check("Cargo.toml", crate_name, manifest).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn drawn_arrows_pass() {
        let manifest = "[dependencies]\nexeunt-store.workspace = true\nserde = \"1\"\n";
        assert_eq!(lines("room", manifest), [0; 0]);
    }

    #[test]
    fn other_arrows_are_found_in_every_spelling() {
        let manifest = "[dependencies]\nexeunt-room.workspace = true\n\
             exeunt-users = { path = \"../users\" }\n\"exeunt-http\" = \"1\"\n\
             [dependencies.exeunt-acl]\nworkspace = true\n\
             [target.'cfg(unix)'.dependencies]\nexeunt-sim.workspace = true\n\
             [build-dependencies]\nexeunt-server = \"1\"\n";
        assert_eq!(lines("sender", manifest), [2, 3, 4, 5, 8, 10]);
    }

    #[test]
    fn some_crates_are_for_tests() {
        let dev = "[dev-dependencies]\nexeunt-sim.workspace = true\n";
        assert_eq!(lines("room", dev), [0; 0]);
        assert_eq!(lines("server", &dev.replace("dev-", "")), [2]);
        assert_eq!(lines("graphs", "[dependencies]\nexeunt-core.workspace = true\n"), [0; 0]);
        assert_eq!(lines("sim", "[dependencies]\nexeunt-server.workspace = true\n"), [0; 0]);
    }

    #[test]
    fn a_new_crate_must_be_drawn() {
        assert_eq!(lines("push", "[package]\n"), [1]);
    }

    #[test]
    fn manifests_are_known_by_their_place() {
        assert_eq!(crate_of_manifest("crates/fed-api/Cargo.toml"), Some("fed-api"));
        assert_eq!(crate_of_manifest("xtask/Cargo.toml"), None);
        assert_eq!(crate_of_manifest("crates/a/fuzz/Cargo.toml"), None);
    }
}
