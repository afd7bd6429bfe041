//! "Resolving server names", step by step, over a table of lookups.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use exeunt_core::ruma::{OwnedServerName, ServerName};
use exeunt_fed_client::discovery::{self, Answer, Dns, DnsError, Srv, WellKnown, WellKnownError};
use exeunt_fed_client::{Delegation, Destination, ResolveError};

/// Lookups by name: addresses separated by spaces, SRV as "priority weight port target" separated
/// by commas, `!` for a failure; what is not there does not exist.
#[derive(Default)]
struct World {
    entries: BTreeMap<String, String>,
    asked: Mutex<Vec<String>>,
}

impl World {
    fn new(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let entries = lines.map(|line| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        Self { entries: entries.collect(), asked: Mutex::default() }
    }

    fn records<T>(
        &self,
        key: String,
        parse: impl Fn(&str) -> Vec<T>,
    ) -> Result<Answer<T>, DnsError> {
        self.asked.lock().unwrap().push(key.clone());
        let records = match self.entries.get(&key).map(String::as_str) {
            Some("!") => return Err(DnsError("SERVFAIL".into())),
            Some(value) => parse(value),
            None => Vec::new(),
        };
        Ok(Answer { records, ttl_ms: 1_000 })
    }
}

#[async_trait]
impl Dns for World {
    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let parse = |text: &str| text.split(' ').map(|a| a.parse().unwrap()).collect();
        self.records(format!("A {host}"), parse)
    }

    async fn services(&self, name: &str) -> Result<Answer<Srv>, DnsError> {
        let service = |text: &str| {
            let mut words = text.split(' ');
            let mut number = || words.next().unwrap().parse::<u16>().unwrap();
            let (priority, weight, port) = (number(), number(), number());
            let target = words.next().unwrap_or_default().to_owned();
            Srv { priority, weight, port, target }
        };
        let parse = |text: &str| text.split(", ").map(service).collect();
        self.records(format!("SRV {name}"), parse)
    }
}

#[async_trait]
impl WellKnown for World {
    async fn delegation(&self, host: &str) -> Result<OwnedServerName, WellKnownError> {
        let key = format!("WK {host}");
        self.asked.lock().unwrap().push(key.clone());
        let to = self.entries.get(&key).ok_or_else(|| WellKnownError("status 404".into()))?;
        OwnedServerName::try_from(to.as_str()).map_err(|e| WellKnownError(e.to_string()))
    }
}

async fn resolve(name: &str, world: &World) -> Result<Destination, ResolveError> {
    let name = <&ServerName>::try_from(name).unwrap();
    // Always the largest number: the heaviest target of a priority comes first.
    discovery::resolve(name, world, world, &|max| max).await
}

/// Checks the outcome as "step | Host | certificate | addresses", and the lookups made.
async fn check(name: &str, world: &str, expected: &str, asked: &str) {
    let world = World::new(world);
    let found = resolve(name, &world).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    let Destination { step, host, certificate, .. } = found;
    let text = format!("{step:?} | {host} | {certificate} | {}", addresses.join(" "));
    assert_eq!(text, expected, "{name}");
    assert_eq!(world.asked.lock().unwrap().join("; "), asked, "{name}");
}

#[tokio::test]
async fn step_1_address_literals() {
    check("1.2.3.4", "", "IpLiteral | 1.2.3.4 | 1.2.3.4 | 1.2.3.4:8448", "").await;
    check("1.2.3.4:5", "", "IpLiteral | 1.2.3.4:5 | 1.2.3.4 | 1.2.3.4:5", "").await;
    check("[::1]", "", "IpLiteral | [::1] | ::1 | [::1]:8448", "").await;
    check("[::1]:443", "", "IpLiteral | [::1]:443 | ::1 | [::1]:443", "").await;
}

#[tokio::test]
async fn step_2_explicit_port() {
    let world = "A a.test = 1.1.1.1 ::1
        WK a.test = b.test
        SRV _matrix-fed._tcp.a.test = 0 0 1 b.test";
    let expected = "ExplicitPort | a.test:8448 | a.test | 1.1.1.1:8448 [::1]:8448";
    check("a.test:8448", world, expected, "A a.test").await;
}

#[tokio::test]
async fn step_3_delegation() {
    // 3.1
    let world = "WK a.test = 9.9.9.9";
    check("a.test", world, "IpLiteral | 9.9.9.9 | 9.9.9.9 | 9.9.9.9:8448", "WK a.test").await;
    let world = "WK a.test = [::9]:99";
    check("a.test", world, "IpLiteral | [::9]:99 | ::9 | [::9]:99", "WK a.test").await;
    // 3.2
    let world = "WK a.test = b.test:443
        A b.test = 2.2.2.2
        WK b.test = c.test";
    let expected = "ExplicitPort | b.test:443 | b.test | 2.2.2.2:443";
    check("a.test", world, expected, "WK a.test; A b.test").await;
    // 3.3
    let world = "WK a.test = b.test
        SRV _matrix-fed._tcp.b.test = 0 0 77 c.test
        SRV _matrix._tcp.b.test = 0 0 78 d.test
        A c.test = 3.3.3.3";
    let expected = "Srv | b.test | b.test | 3.3.3.3:77";
    check("a.test", world, expected, "WK a.test; SRV _matrix-fed._tcp.b.test; A c.test").await;
    // 3.4
    let world = "WK a.test = b.test
        SRV _matrix._tcp.b.test = 0 0 78 d.test
        A d.test = 4.4.4.4";
    let asked = "WK a.test; SRV _matrix-fed._tcp.b.test; SRV _matrix._tcp.b.test; A d.test";
    check("a.test", world, "OldSrv | b.test | b.test | 4.4.4.4:78", asked).await;
    // 3.5
    let world = "WK a.test = b.test
        A b.test = 2.2.2.2";
    let asked = "WK a.test; SRV _matrix-fed._tcp.b.test; SRV _matrix._tcp.b.test; A b.test";
    check("a.test", world, "DefaultPort | b.test | b.test | 2.2.2.2:8448", asked).await;
}

#[tokio::test]
async fn steps_4_to_6_without_delegation() {
    // 4
    let world = "SRV _matrix-fed._tcp.a.test = 0 0 77 c.test
        A c.test = 3.3.3.3";
    let asked = "WK a.test; SRV _matrix-fed._tcp.a.test; A c.test";
    check("a.test", world, "Srv | a.test | a.test | 3.3.3.3:77", asked).await;
    // 5
    let world = "SRV _matrix._tcp.a.test = 0 0 78 d.test
        A d.test = 4.4.4.4";
    let asked = "WK a.test; SRV _matrix-fed._tcp.a.test; SRV _matrix._tcp.a.test; A d.test";
    check("a.test", world, "OldSrv | a.test | a.test | 4.4.4.4:78", asked).await;
    // 6
    let asked = "WK a.test; SRV _matrix-fed._tcp.a.test; SRV _matrix._tcp.a.test; A a.test";
    let expected = "DefaultPort | a.test | a.test | 1.1.1.1:8448";
    check("a.test", "A a.test = 1.1.1.1", expected, asked).await;
    // A DNS server that fails on SRV is one without SRV.
    let world = "SRV _matrix-fed._tcp.a.test = !
        SRV _matrix._tcp.a.test = !
        A a.test = 1.1.1.1";
    check("a.test", world, expected, asked).await;
    // A delegation that cannot be used is none.
    let world = "WK a.test = 2130706433
        A a.test = 1.1.1.1";
    check("a.test", world, expected, asked).await;
}

#[tokio::test]
async fn srv_targets_are_tried_by_priority_and_weight() {
    let world = "SRV _matrix-fed._tcp.a.test = 20 0 3 c.test, 10 1 1 a1.test, 10 9 2 a2.test, 5 0 4 gone.test
        A a1.test = 1.1.1.1
        A a2.test = 2.2.2.2
        A c.test = 3.3.3.3";
    let asked =
        "WK a.test; SRV _matrix-fed._tcp.a.test; A gone.test; A a2.test; A a1.test; A c.test";
    let expected = "Srv | a.test | a.test | 2.2.2.2:2 1.1.1.1:1 3.3.3.3:3";
    check("a.test", world, expected, asked).await;
}

#[tokio::test]
async fn weights_share_the_load() {
    let world = World::new(
        "SRV _matrix-fed._tcp.a.test = 0 0 1 a.test, 0 3 2 a.test, 0 1 3 a.test
        A a.test = 1.1.1.1",
    );
    let name = <&ServerName>::try_from("a.test").unwrap();
    let mut first = Vec::new();
    for dice in 0..=4 {
        let found = discovery::resolve(name, &world, &world, &|max| dice.min(max)).await.unwrap();
        first.push(found.addresses[0].port());
    }
    // Ordered by weight: 0, 1, 3, with sums 0, 1, 4.
    assert_eq!(first, [1, 3, 2, 2, 2]);
}

#[tokio::test]
async fn servers_that_cannot_be_found() {
    let error =
        async |name: &str, world: &str| resolve(name, &World::new(world)).await.unwrap_err();
    assert_eq!(error("a.test", "").await, ResolveError::NoAddress("a.test".into()));
    assert_eq!(error("a.test:1", "").await, ResolveError::NoAddress("a.test".into()));
    let failed = error("a.test", "A a.test = !").await;
    assert_eq!(failed.to_string(), "looking up a.test in DNS failed: SERVFAIL");
    let none = error("a.test", "SRV _matrix-fed._tcp.a.test = 0 0 0 ").await;
    assert_eq!(none, ResolveError::NoService("_matrix-fed._tcp.a.test".into()));
    // An SRV record that leads nowhere is not replaced by port 8448.
    let world = "SRV _matrix-fed._tcp.a.test = 0 0 1 b.test
        A a.test = 1.1.1.1";
    assert_eq!(error("a.test", world).await, ResolveError::NoAddress("b.test".into()));
    // Names that a URL would read as an address, and ports that are none.
    for name in ["2130706433", "0x7f.1", "1.0X1", "1.2.3", "a.test:0", "a.test:99999"] {
        let Ok(server) = <&ServerName>::try_from(name) else { continue };
        let error = resolve(server.as_str(), &World::default()).await.unwrap_err();
        assert_eq!(error, ResolveError::Name(name.into()));
    }
}

#[tokio::test]
async fn what_the_well_known_step_brought_is_told() {
    let delegation =
        async |name: &str, world: &str| resolve(name, &World::new(world)).await.unwrap().delegation;
    let missing = Delegation::None(WellKnownError("status 404".into()));
    assert_eq!(delegation("a.test", "A a.test = 1.1.1.1").await, missing);
    assert_eq!(delegation("a.test:1", "A a.test = 1.1.1.1").await, Delegation::NotAsked);
    let to = Delegation::To("1.1.1.1:2".try_into().unwrap());
    assert_eq!(delegation("a.test", "WK a.test = 1.1.1.1:2").await, to);
}
