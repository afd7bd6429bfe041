//! What must hold between options, and with the world outside.

use std::{collections::BTreeMap, fs::File, path::Path};

use super::{Config, MAX_LISTENERS, Problem, read::Tree, values::Serves};

/// Notes every conflict in the tree's problems.
pub fn check(config: &Config, tree: &mut Tree) {
    listeners(config, tree);
    federation(config, tree);
    for file in &config.app_services.files.0 {
        readable(tree, "app_services.files", file);
    }
    if !config.turn.uris.0.is_empty() && config.turn.shared_secret.is_none() {
        conflict(
            tree,
            "turn.uris",
            "needs the secret of the TURN server: set `shared_secret`".into(),
        );
    }
}

fn listeners(config: &Config, tree: &mut Tree) {
    if config.listeners.is_empty() || config.listeners.len() > MAX_LISTENERS {
        conflict(tree, "listeners", format!("give 1 to {MAX_LISTENERS} of them"));
    }
    let mut binds = BTreeMap::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let key = |name: &str| format!("listeners[{index}].{name}");
        match (&listener.certificate, &listener.key) {
            (Some(_), None) => {
                conflict(tree, &key("certificate"), "needs its private key: set `key` too".into());
            }
            (None, Some(_)) => {
                conflict(tree, &key("key"), "needs its certificate: set `certificate` too".into());
            }
            (Some(certificate), Some(private)) => {
                readable(tree, &key("certificate"), certificate);
                readable(tree, &key("key"), private);
            }
            (None, None) => {}
        }
        // Port 0 asks for any free port, so it may be used twice.
        if listener.bind.port() != 0
            && let Some(other) = binds.insert(listener.bind, index)
        {
            let text = format!(
                "{} is also listeners[{other}].bind; use another port, or serve both there",
                listener.bind
            );
            conflict(tree, &key("bind"), text);
        }
        let only_federation = Serves { client: false, federation: true, metrics: false };
        if listener.serves == only_federation && !config.federation.enabled {
            let text = "federation is disabled, so nothing is served here; remove the listener, \
                 or enable federation";
            conflict(tree, &key("serves"), text.into());
        }
    }
}

fn federation(config: &Config, tree: &mut Tree) {
    let federation = &config.federation;
    if let Some(path) = &federation.extra_ca {
        readable(tree, "federation.extra_ca", path);
    }
    if federation.retry_min > federation.retry_max {
        let text = "is more than retry_max; lower it, or raise that".into();
        conflict(tree, "federation.retry_min", text);
    }
    if federation.departure_retry_min > federation.departure_retry_max {
        let text = "is more than departure_retry_max; lower it, or raise that".into();
        conflict(tree, "federation.departure_retry_min", text);
    }
}

fn readable(tree: &mut Tree, key: &str, path: &Path) {
    let opened = File::open(path).and_then(|file| file.metadata());
    let error = match opened {
        Ok(data) if data.is_file() => return,
        Ok(_) => "it is not a file".to_owned(),
        Err(error) => error.to_string(),
    };
    let text = format!(
        "{} cannot be read: {error}; correct the path, or let this user read it",
        path.display()
    );
    conflict(tree, key, text);
}

fn conflict(tree: &mut Tree, key: &str, text: String) {
    let place = tree.place(key);
    tree.problems.push(Problem::Conflict { place, key: key.into(), text });
}
