use std::time::Duration;

use super::*;

const MINIMAL: &str = "[server]\nname = \"a.example\"\n";

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    parse("exeunt.toml", text, variables)
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = load(text, variables).expect_err("must be refused");
    error.0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(section: &str, expected: &str) {
    assert_eq!(problems(&format!("{MINIMAL}{section}"), &[]), [expected]);
}

#[test]
fn one_name_is_enough() {
    let config = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.server.name, "a.example");
    assert_eq!(config.store.path, Path::new("/var/lib/exeunt"));
    let [listener] = config.listeners.as_slice() else { panic!("one listener by default") };
    assert_eq!(listener.bind.to_string(), "127.0.0.1:8008");
    assert_eq!(listener.serves, Serves { client: true, federation: true, metrics: false });
    assert!(listener.certificate.is_none());
    assert!(config.federation.enabled);
    assert_eq!(config.federation.leave_deadline, Duration::from_secs(2));
    assert!(!config.registration.open);
    assert_eq!(config.rooms.default_version.as_str(), "12");
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn the_example_says_what_is_the_case() {
    let example = example();
    let unedited = load(&example, &[]).unwrap_err().to_string();
    assert!(unedited.contains("`server.name` is missing"), "{unedited}");
    let edited = example.replace("#name = ", "name = ");
    let from_example = load(&edited, &[]).unwrap();
    let from_nothing = load("[server]\nname = \"example.org\"\n", &[]).unwrap();
    assert_eq!(format!("{from_example:?}"), format!("{from_nothing:?}"));
    for (section, options) in SECTIONS {
        for option in *options {
            assert!(!option.doc.is_empty(), "{section}.{} has no text", option.key);
            assert!(example.contains(&format!("{} = {}", option.key, option.shape.shown())));
        }
    }
}

#[test]
fn the_examples_of_options_fit() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("a.pem");
    fs::write(&pem, "").unwrap();
    let text: String = example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(line) if !line.starts_with(' ') && line.contains(".pem\"") => {
                let key = line.split(' ').next().unwrap();
                format!("{key} = {:?}\n", pem.to_str().unwrap())
            }
            Some(line) if !line.starts_with(' ') => format!("{line}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = load(&text, &[]).unwrap();
    assert!(config.registration.token.is_some());
    assert_eq!(config.well_known.server.unwrap().as_name(), "matrix.example.org:443");
}

#[test]
fn the_kept_example_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/exeunt.example.toml");
    let kept = fs::read_to_string(path).unwrap();
    assert!(kept == example(), "it differs: run `cargo xtask config-reference`");
}

#[test]
fn the_environment_wins() {
    let text = format!("{MINIMAL}[log]\nfilter = \"warn\"\n");
    let variables = [
        ("EXEUNT__SERVER__NAME", "b.example"),
        ("EXEUNT__LOG__FILTER", "info,exeunt_room=debug"),
        ("EXEUNT__REGISTRATION__OPEN", "true"),
        ("EXEUNT__ROOMS__DEFAULT_VERSION", "10"),
        ("EXEUNT__FEDERATION__LEAVE_DEADLINE", "3s"),
        ("EXEUNT_CONFIG", "not for us"),
        ("PATH", "/bin"),
    ];
    let config = load(&text, &variables).unwrap();
    assert_eq!(config.server.name, "b.example");
    assert_eq!(config.log.filter.directives(), "info,exeunt_room=debug");
    assert!(config.registration.open);
    assert_eq!(config.rooms.default_version.as_str(), "10");
    assert_eq!(config.federation.leave_deadline, Duration::from_secs(3));
}

#[test]
fn the_environment_is_enough() {
    let config = load("", &[("EXEUNT__SERVER__NAME", "b.example")]).unwrap();
    assert_eq!(config.server.name, "b.example");
}

#[test]
fn the_environment_reaches_into_listeners() {
    let text = format!("{MINIMAL}[[listeners]]\nbind = \"127.0.0.1:1\"\nserves = [\"client\"]\n");
    let variables = [
        ("EXEUNT__LISTENERS__0__BIND", "127.0.0.1:2"),
        ("EXEUNT__LISTENERS__1__BIND", "127.0.0.1:3"),
        ("EXEUNT__LISTENERS__1__SERVES", "federation"),
    ];
    let config = load(&text, &variables).unwrap();
    let [first, second] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(first.bind.port(), 2);
    assert_eq!(first.serves, Serves { client: true, federation: false, metrics: false });
    assert_eq!(second.bind.port(), 3);
    assert_eq!(second.serves, Serves { client: false, federation: true, metrics: false });
}

#[test]
fn variables_that_mean_nothing_are_refused() {
    let refused = |name| problems(MINIMAL, &[(name, "x")]).concat();
    let found = refused("EXEUNT__SERVER__NAMES");
    assert_eq!(found, "EXEUNT__SERVER__NAMES: there is no option `server.names`; server has name");
    assert!(refused("EXEUNT__SERVE__NAME").contains("the sections are server, store"));
    assert!(refused("EXEUNT__SERVER").contains("write EXEUNT__SECTION__KEY"));
    assert!(refused("EXEUNT__LISTENERS__BIND").contains("EXEUNT__LISTENERS__0__BIND"));
    assert!(refused("EXEUNT__LISTENERS__99__BIND").contains("from 0 to 15"));
}

#[test]
fn a_bad_variable_is_named() {
    let found = problems(MINIMAL, &[("EXEUNT__FEDERATION__ENABLED", "maybe")]).concat();
    assert_eq!(
        found,
        "EXEUNT__FEDERATION__ENABLED: `federation.enabled` \"maybe\" does not fit; give true or \
         false"
    );
}

#[test]
fn the_name_is_required_and_must_be_a_server_name() {
    let missing =
        "exeunt.toml: `server.name` is missing; add name = \"example.org\" under [server]";
    assert_eq!(problems("", &[]), [missing]);
    let found = problems("[server]\nname = \"https://a.example\"\n", &[]).concat();
    assert!(found.starts_with("exeunt.toml: `server.name` \"https://a.example\" does not fit"));
    assert!(found.contains("without https://"), "{found}");
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    check(
        "[federation]\nretrymin = \"1s\"\n",
        "exeunt.toml: there is no option `federation.retrymin`; did you mean \
         `federation.retry_min`?",
    );
    check("[sotre]\n", "exeunt.toml: there is no option `sotre`; did you mean `store`?");
    check(
        "[store]\nengine = \"sled\"\n",
        "exeunt.toml: there is no option `store.engine`; there are path",
    );
    check(
        "[[listeners]]\n[[listeners]]\nbind = \"127.0.0.1:1\"\nserve = \"client\"\n",
        "exeunt.toml: there is no option `listeners[1].serve`; did you mean \
         `listeners[1].serves`?",
    );
}

#[test]
fn values_that_do_not_fit_say_what_does() {
    check(
        "[federation]\nretry_min = 10\n",
        "exeunt.toml: `federation.retry_min` 10 does not fit; give a whole number of at least 1 \
         with its unit (ms, s, m, h, d), like \"10s\"",
    );
    check(
        "[[listeners]]\nbind = \"localhost\"\n",
        "exeunt.toml: `listeners[0].bind` \"localhost\" does not fit; give an IP address and a \
         port, like \"127.0.0.1:8008\"",
    );
    check(
        "[[listeners]]\nserves = []\n",
        "exeunt.toml: `listeners[0].serves` [] does not fit; give a list of \"client\", \
         \"federation\" and \"metrics\"",
    );
    check(
        "[rooms]\ndefault_version = \"13\"\n",
        "exeunt.toml: `rooms.default_version` \"13\" does not fit; give one of the room versions \
         \"1\" to \"12\"",
    );
    check(
        "[registration]\ntoken = \"short\"\n",
        "exeunt.toml: `registration.token` does not fit; give a text of at least 8 characters",
    );
    check(
        "[log]\nfilter = \"loud\"\n",
        "exeunt.toml: `log.filter` \"loud\" does not fit; give a level (error, warn, info, debug, \
         trace), also per module: \"info,exeunt_room=debug\"",
    );
}

#[test]
fn numbers_may_be_room_versions() {
    let config = load(&format!("{MINIMAL}[rooms]\ndefault_version = 11\n"), &[]).unwrap();
    assert_eq!(config.rooms.default_version.as_str(), "11");
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "[server]\nname = \"\"\n[log]\nformat = \"xml\"\n[sotre]\n";
    assert_eq!(problems(text, &[]).len(), 3);
}

#[test]
fn certificates_come_with_keys() {
    check(
        "[[listeners]]\ncertificate = \"cert.pem\"\n",
        "exeunt.toml: `listeners[0].certificate`: needs its private key: set `key` too",
    );
    check(
        "[[listeners]]\nkey = \"key.pem\"\n",
        "exeunt.toml: `listeners[0].key`: needs its certificate: set `certificate` too",
    );
}

#[test]
fn files_are_looked_for_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let found =
        problems(&format!("{MINIMAL}[federation]\nextra_ca = \"{path}/ca.pem\"\n"), &[]).concat();
    assert!(found.starts_with("exeunt.toml: `federation.extra_ca`: "), "{found}");
    assert!(found.contains("ca.pem cannot be read: No such file"), "{found}");
    let found = problems(&format!("{MINIMAL}[federation]\nextra_ca = \"{path}\"\n"), &[]).concat();
    assert!(found.contains("it is not a file"), "{found}");
}

#[test]
fn conflicts_are_found() {
    let text = format!("listeners = []\n{MINIMAL}");
    assert_eq!(problems(&text, &[]), ["exeunt.toml: `listeners`: give 1 to 16 of them"]);
    check(
        "[[listeners]]\n[[listeners]]\n",
        "exeunt.toml: `listeners[1].bind`: 127.0.0.1:8008 is also listeners[0].bind; use another \
         port, or serve both there",
    );
    check(
        "[federation]\nenabled = false\n[[listeners]]\nserves = [\"federation\"]\n",
        "exeunt.toml: `listeners[0].serves`: federation is disabled, so nothing is served here; \
         remove the listener, or enable federation",
    );
    check(
        "[federation]\nretry_min = \"2h\"\n",
        "exeunt.toml: `federation.retry_min`: is more than retry_max; lower it, or raise that",
    );
    check(
        "[federation]\ndeparture_retry_max = \"1s\"\n",
        "exeunt.toml: `federation.departure_retry_min`: is more than departure_retry_max; lower \
         it, or raise that",
    );
    check("listeners = 5\n", "exeunt.toml: there is no option `server.listeners`; there are name");
}

#[test]
fn sections_are_tables() {
    let found = problems(&format!("store = 5\n{MINIMAL}"), &[]).concat();
    assert!(found.starts_with("exeunt.toml: `store` does not fit; give a table"), "{found}");
    let found = problems(&format!("listeners = 5\n{MINIMAL}"), &[]).concat();
    assert!(found.starts_with("exeunt.toml: `listeners` does not fit; give a list"), "{found}");
}

#[test]
fn broken_toml_shows_the_line() {
    let found = problems("[server]\nname = \"a\n", &[]).concat();
    assert!(found.starts_with("exeunt.toml: is not TOML: "), "{found}");
    assert!(found.contains("line 2"), "{found}");
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = super::load(&folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(error.contains("none.toml: cannot be read: No such file"), "{error}");
    assert!(error.contains("`exeunt config example`"), "{error}");
}
