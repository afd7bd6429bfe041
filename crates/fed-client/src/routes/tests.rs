use std::net::IpAddr;

use async_trait::async_trait;

use super::*;
use crate::discovery::{Answer, Delegation, DnsError, Srv};
use crate::support::{Ca, TestServer, json};
use crate::tls;

/// Every name has the address 127.0.0.1, and federation by SRV on one port.
struct Local(u16);

#[async_trait]
impl Dns for Local {
    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, DnsError> {
        Ok(Answer { records: vec![IpAddr::from([127, 0, 0, 1])], ttl_ms: 1_000 })
    }

    async fn services(&self, _: &str) -> Result<Answer<Srv>, DnsError> {
        let srv = Srv { priority: 0, weight: 0, port: self.0, target: "srv.test".into() };
        Ok(Answer { records: vec![srv], ttl_ms: 1_000 })
    }
}

fn routes(ca: &Ca, port: u16) -> Routes {
    let tls = tls::client_config(Some(ca.file().path())).unwrap();
    let dns: Arc<dyn Dns> = Arc::new(Local(port));
    Routes::new(&tls, &dns, &BTreeMap::new()).unwrap()
}

fn route(host: &str) -> Route {
    let name = <&ServerName>::try_from(host).unwrap();
    let target = Target::parse(name).unwrap();
    Route { target, host: host.into(), delegation: Delegation::NotAsked }
}

#[tokio::test]
async fn the_host_header_is_the_route_s() {
    let routes = routes(&Ca::new("ours"), 1);
    let check = |host: &str, url: &str, header: Option<&str>| {
        let way = routes.way(&route(host), "/x?y=z").unwrap();
        assert_eq!((way.url.as_str(), way.host.as_deref()), (url, header), "{host}");
    };
    check("a.test", "https://a.test/x?y=z", None);
    check("A.Test", "https://a.test/x?y=z", None);
    check("a.test:8448", "https://a.test:8448/x?y=z", None);
    check("a.test:443", "https://a.test/x?y=z", Some("a.test:443"));
    check("1.2.3.4", "https://1.2.3.4:8448/x?y=z", Some("1.2.3.4"));
    check("1.2.3.4:5", "https://1.2.3.4:5/x?y=z", None);
    check("[::1]", "https://[::1]:8448/x?y=z", Some("[::1]"));
    check("[::1]:5", "https://[::1]:5/x?y=z", None);
}

#[tokio::test]
async fn srv_decides_the_port_and_the_delegated_name_the_certificate() {
    let ca = Ca::new("ours");
    let server = TestServer::start(ca.issue("a.test"), |_| json("{}")).await;
    let port = server.address.port();
    let routes = routes(&ca, port);
    for host in ["a.test".to_owned(), format!("a.test:{port}")] {
        let way = routes.way(&route(&host), "/x").unwrap();
        assert_eq!(way.client.get(way.url).send().await.unwrap().status(), 200);
        assert_eq!(server.seen().last().unwrap().headers["host"], host);
    }
    // The SRV target's name is not what the certificate is checked for.
    let way = routes.way(&route("b.test"), "/x").unwrap();
    let error = way.client.get(way.url).send().await.unwrap_err();
    let text = RequestError::from_http(&error).to_string();
    assert!(text.contains("b.test is needed"), "{text}");
}

#[test]
fn an_address_needs_no_static_route() {
    let tls = tls::client_config(Some(Ca::new("ours").file().path())).unwrap();
    let dns: Arc<dyn Dns> = Arc::new(Local(1));
    let name: OwnedServerName = "1.2.3.4:5".try_into().unwrap();
    let overrides = BTreeMap::from([(name, "127.0.0.1:1".parse().unwrap())]);
    let error = Routes::new(&tls, &dns, &overrides).err().unwrap();
    assert!(matches!(error, SetupError::OverrideOfAddress(_)), "{error}");
}
