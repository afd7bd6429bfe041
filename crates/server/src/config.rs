//! The configuration: one TOML file, overridable by the environment.
//!
//! Everything is checked here, once; what comes out can be used. All problems are reported
//! together, each with its place and what to do about it.

mod check;
mod environment;
mod example;
mod option;
mod read;
mod sections;
mod values;

use std::{fmt, fs, path::Path};

use config::{File, FileFormat};
pub use example::example;
use option::Section;
use read::Tree;
pub use sections::{
    AppServices, Federation, Listener, Log, Notices, Presence, RateLimits, Registration, Rooms,
    Server, Store, Support, Turn, WellKnown,
};
use thiserror::Error;
pub use values::{
    Authority, BaseUrl, Filter, LogFormat, Paths, RateLimit, Secret, ServerNames, Serves, Text,
    Uris, duration,
};

/// The most listeners that can be configured.
pub const MAX_LISTENERS: usize = 16;

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub listeners: Vec<Listener>,
    pub federation: Federation,
    pub registration: Registration,
    pub app_services: AppServices,
    pub rate_limits: RateLimits,
    pub rooms: Rooms,
    pub presence: Presence,
    pub notices: Notices,
    pub support: Support,
    pub turn: Turn,
    pub log: Log,
    pub well_known: WellKnown,
}

/// One thing that is wrong: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("{file}: cannot be read: {error}; `exeunt config example` prints a file to start from")]
    Unreadable { file: String, error: String },
    #[error("{file}: is not TOML: {error}")]
    Syntax { file: String, error: String },
    #[error("{place}: there is no option `{key}`; {advice}")]
    Unknown { place: String, key: String, advice: String },
    #[error("{place}: `{section}.{key}` is missing; add {key} = {example} under [{section}]")]
    Missing { place: String, section: String, key: String, example: &'static str },
    #[error("{place}: `{key}`{found} does not fit; give {expects}")]
    Misfit { place: String, key: String, found: String, expects: &'static str },
    #[error("{place}: `{key}`: {text}")]
    Conflict { place: String, key: String, text: String },
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Reads the file and the variables of this process.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file)
        .map_err(|e| Problem::Unreadable { file: name.clone(), error: e.to_string() })?;
    parse(&name, &text, environment::of_process())
}

/// Reads a configuration from text and variables.
pub fn parse(
    file: &str,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let syntax = |error: config::ConfigError| {
        let error = match error {
            config::ConfigError::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        ConfigError::from(Problem::Syntax { file: file.to_owned(), error: error.trim().to_owned() })
    };
    let overrides = environment::overrides(variables);
    let mut builder = config::Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    for (key, setting) in &overrides.settings {
        builder = builder.set_override(key, setting.value.as_str()).map_err(syntax)?;
    }
    let root = builder.build().map_err(syntax)?.cache.into_table().map_err(syntax)?;
    let variables =
        overrides.settings.into_iter().map(|(key, setting)| (key, setting.variable)).collect();
    let tree = Tree { file: file.to_owned(), root, variables, problems: overrides.problems };
    read_all(tree)
}

fn read_all(mut tree: Tree) -> Result<Config, ConfigError> {
    let server = tree.section::<Server>();
    let store = tree.section::<Store>();
    let listeners = tree.sections::<Listener>();
    let federation = tree.section::<Federation>();
    let registration = tree.section::<Registration>();
    let app_services = tree.section::<AppServices>();
    let rate_limits = tree.section::<RateLimits>();
    let rooms = tree.section::<Rooms>();
    let presence = tree.section::<Presence>();
    let notices = tree.section::<Notices>();
    let support = tree.section::<Support>();
    let turn = tree.section::<Turn>();
    let log = tree.section::<Log>();
    let well_known = tree.section::<WellKnown>();
    let mut unknown: Vec<String> = tree.root.keys().cloned().collect();
    unknown.sort();
    for key in unknown {
        tree.unknown("", &key, SECTIONS.iter().map(|(name, _)| *name));
    }
    let config = (|| {
        Some(Config {
            server: server?,
            store: store?,
            listeners: listeners?,
            federation: federation?,
            registration: registration?,
            app_services: app_services?,
            rate_limits: rate_limits?,
            rooms: rooms?,
            presence: presence?,
            notices: notices?,
            support: support?,
            turn: turn?,
            log: log?,
            well_known: well_known?,
        })
    })();
    if let Some(config) = &config {
        check::check(config, &mut tree);
    }
    match config {
        Some(config) if tree.problems.is_empty() => Ok(config),
        _ => Err(ConfigError(tree.problems)),
    }
}

/// The sections and their options.
const SECTIONS: &[(&str, &[option::Opt])] = &[
    (Server::KEY, Server::OPTIONS),
    (Store::KEY, Store::OPTIONS),
    (Listener::KEY, Listener::OPTIONS),
    (Federation::KEY, Federation::OPTIONS),
    (Registration::KEY, Registration::OPTIONS),
    (AppServices::KEY, AppServices::OPTIONS),
    (RateLimits::KEY, RateLimits::OPTIONS),
    (Rooms::KEY, Rooms::OPTIONS),
    (Presence::KEY, Presence::OPTIONS),
    (Notices::KEY, Notices::OPTIONS),
    (Support::KEY, Support::OPTIONS),
    (Turn::KEY, Turn::OPTIONS),
    (Log::KEY, Log::OPTIONS),
    (WellKnown::KEY, WellKnown::OPTIONS),
];

#[cfg(test)]
mod tests;
