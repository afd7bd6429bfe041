//! The types of options, and how each is read from a TOML value.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use config::{Value, ValueKind};
use exeunt_client_api::Rate;
use exeunt_core::{
    RoomVersion,
    ruma::{OwnedServerName, OwnedUserId, ServerName},
};
use tracing_subscriber::EnvFilter;

/// A value of an option.
pub trait FromValue: Sized {
    /// What to write instead of something that does not fit.
    const EXPECTS: &'static str;
    /// Whether an error must not repeat what was written.
    const SECRET: bool = false;

    fn from_value(value: Value) -> Option<Self>;

    /// The value of an option that is neither given nor required.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTS: &'static str = T::EXPECTS;
    const SECRET: bool = T::SECRET;

    fn from_value(value: Value) -> Option<Self> {
        T::from_value(value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

fn text(value: Value) -> Option<String> {
    let scalar = !matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_));
    value.into_string().ok().filter(|text| scalar && !text.is_empty())
}

/// A list; in an environment variable, separated by commas.
fn texts(value: Value) -> Option<Vec<String>> {
    match value.kind {
        ValueKind::Array(items) => items.into_iter().map(text).collect(),
        ValueKind::String(text) => {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            Some(texts.map(str::to_owned).collect())
        }
        _ => None,
    }
}

impl FromValue for bool {
    const EXPECTS: &'static str = "true or false";

    fn from_value(value: Value) -> Option<Self> {
        match value.kind {
            ValueKind::Boolean(flag) => Some(flag),
            ValueKind::String(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl FromValue for PathBuf {
    const EXPECTS: &'static str = "a path";

    fn from_value(value: Value) -> Option<Self> {
        text(value).map(PathBuf::from)
    }
}

impl FromValue for SocketAddr {
    const EXPECTS: &'static str = "an IP address and a port, like \"127.0.0.1:8008\"";

    fn from_value(value: Value) -> Option<Self> {
        text(value)?.parse().ok()
    }
}

impl FromValue for Duration {
    const EXPECTS: &'static str =
        "a whole number of at least 1 with its unit (ms, s, m, h, d), like \"10s\"";

    fn from_value(value: Value) -> Option<Self> {
        duration(&text(value)?)
    }
}

/// A whole number with its unit.
pub fn duration(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 60 * 60;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|n| *n > 0)?;
    let seconds = match unit.trim_start() {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        _ => return None,
    };
    let seconds = number.checked_mul(seconds).filter(|s| *s <= 10_000 * DAY)?;
    Some(Duration::from_secs(seconds))
}

/// A text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromValue for Text {
    const EXPECTS: &'static str = "a text";

    fn from_value(value: Value) -> Option<Self> {
        text(value).map(Self)
    }
}

impl FromValue for OwnedUserId {
    const EXPECTS: &'static str = "a user id, like \"@admin:example.org\"";

    fn from_value(value: Value) -> Option<Self> {
        text(value)?.try_into().ok()
    }
}

impl FromValue for OwnedServerName {
    const EXPECTS: &'static str = "a host name or IP address (and a port if it is not 8448), \
         without https://, like \"example.org\"";

    fn from_value(value: Value) -> Option<Self> {
        ServerName::parse(text(value)?.to_ascii_lowercase()).ok()
    }
}

/// How often something may be done; `None`: as often as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit(pub Option<Rate>);

impl FromValue for RateLimit {
    const EXPECTS: &'static str = "a number of requests and a time, like \"20/1m\", or \"off\"";

    fn from_value(value: Value) -> Option<Self> {
        let text = text(value)?;
        if text == "off" {
            return Some(Self(None));
        }
        let (requests, per) = text.split_once('/')?;
        let requests = requests.trim().parse().ok().filter(|requests| *requests > 0)?;
        let per = Duration::from_value(Value::new(None, per.trim()))?;
        Some(Self(Some(Rate { requests, per })))
    }
}

/// Names of servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames(pub Vec<OwnedServerName>);

impl FromValue for ServerNames {
    const EXPECTS: &'static str = "a list of host names, like [\"example.org\"]";

    fn from_value(value: Value) -> Option<Self> {
        let names: Vec<Value> = match value.kind {
            ValueKind::Array(items) => items,
            // An environment variable: separated by commas.
            ValueKind::String(text) => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                names.map(|name| Value::new(None, name)).collect()
            }
            _ => return None,
        };
        names.into_iter().map(OwnedServerName::from_value).collect::<Option<_>>().map(Self)
    }
}

impl FromValue for RoomVersion {
    const EXPECTS: &'static str = "one of the room versions \"1\" to \"12\"";

    fn from_value(value: Value) -> Option<Self> {
        RoomVersion::parse(&text(value)?).ok()
    }
}

/// URIs of TURN servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uris(pub Vec<String>);

impl FromValue for Uris {
    const EXPECTS: &'static str = "a list of URIs, like [\"turn:turn.example.org?transport=udp\"]";

    fn from_value(value: Value) -> Option<Self> {
        let uris = texts(value)?;
        let is_turn = |uri: &String| uri.starts_with("turn:") || uri.starts_with("turns:");
        uris.iter().all(is_turn).then_some(Self(uris))
    }
}

/// Paths of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths(pub Vec<PathBuf>);

impl FromValue for Paths {
    const EXPECTS: &'static str = "a list of paths, like [\"/etc/exeunt/bridge.yaml\"]";

    fn from_value(value: Value) -> Option<Self> {
        texts(value).map(|paths| Self(paths.into_iter().map(PathBuf::from).collect()))
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromValue for Secret {
    const EXPECTS: &'static str = "a text of at least 8 characters";
    const SECRET: bool = true;

    fn from_value(value: Value) -> Option<Self> {
        text(value).filter(|t| t.chars().count() >= 8).map(Self)
    }
}

/// The APIs of a listener; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    pub client: bool,
    pub federation: bool,
    pub metrics: bool,
}

impl FromValue for Serves {
    const EXPECTS: &'static str = "a list of \"client\", \"federation\" and \"metrics\"";

    fn from_value(value: Value) -> Option<Self> {
        let names: Vec<String> = match value.kind {
            ValueKind::Array(items) => items.into_iter().map(text).collect::<Option<_>>()?,
            // An environment variable: separated by commas.
            ValueKind::String(text) => text.split(',').map(|s| s.trim().to_owned()).collect(),
            _ => return None,
        };
        let mut serves = Self { client: false, federation: false, metrics: false };
        for name in &names {
            match name.as_str() {
                "client" => serves.client = true,
                "federation" => serves.federation = true,
                "metrics" => serves.metrics = true,
                _ => return None,
            }
        }
        (serves.client || serves.federation || serves.metrics).then_some(serves)
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl FromValue for LogFormat {
    const EXPECTS: &'static str = "\"text\" or \"json\"";

    fn from_value(value: Value) -> Option<Self> {
        match text(value)?.as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Which log lines are written: directives that were parsed once and are known to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl FromValue for Filter {
    const EXPECTS: &'static str =
        "a level (error, warn, info, debug, trace), also per module: \"info,exeunt_room=debug\"";

    fn from_value(value: Value) -> Option<Self> {
        let text = text(value)?;
        // A lone word parses as a module's name: a misspelt level would silence the log.
        let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        let sensible = text.split(',').all(|part| part.contains('=') || is_level(part.trim()));
        (sensible && EnvFilter::try_new(&text).is_ok()).then_some(Self(text))
    }
}

/// An `https://` (or `http://`) URL, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromValue for BaseUrl {
    const EXPECTS: &'static str = "a URL like \"https://matrix.example.org\"";

    fn from_value(value: Value) -> Option<Self> {
        let text = text(value)?;
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let plain = !rest.contains(['?', '#', ' ', '@']);
        (plain && ServerName::parse(host).is_ok())
            .then(|| Self(text.trim_end_matches('/').to_owned()))
    }
}

/// A host with or without a port, in the syntax of server names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(OwnedServerName);

impl Authority {
    pub fn as_name(&self) -> &ServerName {
        &self.0
    }
}

impl FromValue for Authority {
    const EXPECTS: &'static str = "a host and a port, like \"matrix.example.org:443\"";

    fn from_value(value: Value) -> Option<Self> {
        ServerName::parse(text(value)?).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromValue>(value: impl Into<ValueKind>) -> Option<T> {
        T::from_value(Value::new(None, value))
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(read("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read("10s"), Some(Duration::from_secs(10)));
        assert_eq!(read("2 h"), Some(Duration::from_secs(7200)));
        assert_eq!(read("1d"), Some(Duration::from_secs(86_400)));
        for bad in ["10", "0s", "-1s", "1.5s", "s", "1y", "18446744073709551615h"] {
            assert_eq!(read::<Duration>(bad), None, "{bad}");
        }
        assert_eq!(read::<Duration>(10), None);
    }

    #[test]
    fn rates_have_a_number_and_a_time() {
        let rate = |requests, per| Some(RateLimit(Some(Rate { requests, per })));
        assert_eq!(read("20/1m"), rate(20, Duration::from_secs(60)));
        assert_eq!(read("1 / 500ms"), rate(1, Duration::from_millis(500)));
        assert_eq!(read("off"), Some(RateLimit(None)));
        for bad in ["20", "0/1m", "-1/1m", "20/1", "20/0s", "1.5/1m", "/1m", "on", ""] {
            assert_eq!(read::<RateLimit>(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_of_servers() {
        let names = |list: &[&str]| {
            Some(ServerNames(list.iter().map(|name| ServerName::parse(name).unwrap()).collect()))
        };
        assert_eq!(read(vec!["A.org", "b.org:8"]), names(&["a.org", "b.org:8"]));
        assert_eq!(read("a.org, b.org"), names(&["a.org", "b.org"]));
        assert_eq!(read(""), names(&[]));
        assert_eq!(read::<ServerNames>(vec!["https://a.org"]), None);
        let paths = Some(Paths(vec!["/a b.yaml".into(), "c.yaml".into()]));
        assert_eq!(read(vec!["/a b.yaml", "c.yaml"]), paths);
        assert_eq!(read("/a b.yaml, c.yaml"), paths);
        assert_eq!(read::<Paths>(1), None);
    }

    #[test]
    fn listeners_serve_something() {
        let both = Serves { client: true, federation: true, metrics: false };
        let metrics = Serves { client: false, federation: false, metrics: true };
        assert_eq!(read("metrics"), Some(metrics));
        assert_eq!(read("client, federation"), Some(both));
        assert_eq!(read(vec!["federation", "client"]), Some(both));
        assert_eq!(read::<Serves>(Vec::<String>::new()), None);
        assert_eq!(read::<Serves>("media"), None);
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!(read::<Filter>("warn,exeunt_room=debug").is_some());
        assert!(read::<Filter>("inof").is_none());
        assert!(read::<Filter>("exeunt_room=loud").is_none());
    }

    #[test]
    fn urls_and_hosts() {
        assert_eq!(read::<BaseUrl>("https://a.org/").unwrap().as_str(), "https://a.org");
        assert!(read::<BaseUrl>("a.org").is_none());
        assert!(read::<BaseUrl>("https://").is_none());
        assert!(read::<Authority>("https://a.org").is_none());
        assert_eq!(read::<Authority>("a.org:443").unwrap().as_name(), "a.org:443");
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = read::<Secret>("correct horse").unwrap();
        assert_eq!(secret.reveal(), "correct horse");
        assert!(!format!("{secret:?}").contains("horse"));
    }
}
