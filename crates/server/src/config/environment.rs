//! Overrides from the environment: `EXEUNT__SECTION__KEY`, `EXEUNT__LISTENERS__0__BIND`.

use std::collections::BTreeMap;

use super::{Listener, MAX_LISTENERS, Problem, SECTIONS, option::Section};

const PREFIX: &str = "EXEUNT__";

/// What the variables set.
#[derive(Default)]
pub struct Overrides {
    /// By key, like `federation.enabled` or `listeners[0].bind`.
    pub settings: BTreeMap<String, Setting>,
    pub problems: Vec<Problem>,
}

pub struct Setting {
    pub variable: String,
    pub value: String,
}

/// The variables of this process; one that is not UTF-8 keeps a mark where it is not.
pub fn of_process() -> impl Iterator<Item = (String, String)> {
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Sorts out the variables that are meant for us.
pub fn overrides(variables: impl IntoIterator<Item = (String, String)>) -> Overrides {
    let mut overrides = Overrides::default();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        match key(&name.to_lowercase()) {
            Ok(key) => {
                overrides.settings.insert(key, Setting { variable, value });
            }
            Err(advice) => {
                let key = name.to_lowercase().replace("__", ".");
                overrides.problems.push(Problem::Unknown { place: variable, key, advice });
            }
        }
    }
    overrides
}

/// The key that a lower-case name without prefix means, or what would be right.
fn key(name: &str) -> Result<String, String> {
    let parts: Vec<&str> = name.split("__").collect();
    let (section, index, option) = match parts.as_slice() {
        [section, option] if *section != Listener::KEY => (*section, None, *option),
        [section, index, option] if *section == Listener::KEY => {
            let index = index.parse().ok().filter(|index: &usize| *index < MAX_LISTENERS);
            let index = index
                .ok_or_else(|| format!("number the listeners from 0 to {}", MAX_LISTENERS - 1))?;
            (*section, Some(index), *option)
        }
        [section, ..] if *section == Listener::KEY => {
            return Err("write EXEUNT__LISTENERS__0__BIND".into());
        }
        _ => return Err("write EXEUNT__SECTION__KEY, like EXEUNT__SERVER__NAME".into()),
    };
    let Some((_, options)) = SECTIONS.iter().find(|(name, _)| *name == section) else {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        return Err(format!("the sections are {}", names.join(", ")));
    };
    if !options.iter().any(|known| known.key == option) {
        let names: Vec<&str> = options.iter().map(|known| known.key).collect();
        return Err(format!("{section} has {}", names.join(", ")));
    }
    Ok(match index {
        Some(index) => format!("{section}[{index}].{option}"),
        None => format!("{section}.{option}"),
    })
}
