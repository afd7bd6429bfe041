use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::HeaderValue;

use super::*;
use crate::support::{Ca, Received, Reply, TestServer, json, reply};
use crate::tls;

const START: u64 = 1_700_000_000_000;

/// A lookup whose every host is one test server, and its clock.
async fn setup(
    handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (TestServer, HttpWellKnown, Arc<AtomicU64>) {
    let ca = Ca::new("ours");
    let server = TestServer::start(ca.issue("a.test"), handler).await;
    let tls = tls::client_config(Some(ca.file().path())).unwrap();
    let time = Arc::new(AtomicU64::new(START));
    let clock: Clock = Arc::new({
        let time = time.clone();
        move || time.load(Ordering::SeqCst)
    });
    let lookup = HttpWellKnown::new(&tls, Resolver::Fixed(server.address), clock).unwrap();
    (server, lookup, time)
}

async fn failure(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> String {
    let (_server, lookup, _) = setup(handler).await;
    lookup.delegation("a.test").await.unwrap_err().0
}

#[tokio::test]
async fn a_delegation_is_found_and_remembered() {
    let (server, lookup, time) = setup(|_| json(r#"{"m.server":"b.test:443"}"#)).await;
    let found = lookup.delegation("a.test").await.unwrap();
    assert_eq!(found, "b.test:443");
    assert_eq!(lookup.delegation("A.TEST").await.unwrap(), "b.test:443");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/.well-known/matrix/server");
    assert!(!seen[0].headers.contains_key("authorization"));
    time.fetch_add(DEFAULT_TTL_MS, Ordering::SeqCst);
    lookup.delegation("a.test").await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn one_task_asks_for_all() {
    let (server, lookup, _) = setup(|_| json(r#"{"m.server":"b.test"}"#)).await;
    let lookups = (0..20).map(|_| lookup.delegation("a.test"));
    for found in futures_util::future::join_all(lookups).await {
        assert_eq!(found.unwrap(), "b.test");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_bound() {
    let (_server, lookup, _) = setup(|request| match &*request.path {
        "/end" => json(r#"{"m.server":"b.test"}"#),
        _ => reply(302, "location: /end\r\n", ""),
    })
    .await;
    assert_eq!(lookup.delegation("a.test").await.unwrap(), "b.test");

    let (server, lookup, _) = setup(|_| reply(302, "location: /again\r\n", "")).await;
    assert!(lookup.delegation("a.test").await.unwrap_err().0.contains("redirects"));
    assert_eq!(server.seen().len(), MAX_REDIRECTS + 1);

    let text = failure(|_| reply(302, "location: http://a.test/x\r\n", "")).await;
    assert!(text.contains("not to HTTPS"), "{text}");
}

#[tokio::test]
async fn answers_that_are_no_delegation() {
    assert_eq!(failure(|_| reply(404, "", "")).await, "status 404");
    assert!(failure(|_| json("<html>")).await.starts_with("not JSON"));
    assert!(failure(|_| json("{}")).await.contains("no m.server"));
    assert!(failure(|_| json(r#"{"m.server":"a b"}"#)).await.contains("no server name"));
    assert!(failure(|_| json(r#"{"m.server":"https://b.test"}"#)).await.contains("no server name"));
    assert!(failure(|_| Reply::Endless).await.contains("longer than"));
}

#[tokio::test]
async fn failures_are_repeated_ever_more_slowly() {
    let (server, lookup, time) = setup(|_| reply(500, "", "")).await;
    let mut times = Vec::new();
    for minute in 0..240 {
        time.store(START + minute * 60_000, Ordering::SeqCst);
        lookup.delegation("a.test").await.unwrap_err();
        if server.seen().len() > times.len() {
            times.push(minute);
        }
    }
    assert_eq!(times, [0, 2, 6, 14, 30, 62, 122, 182]);
}

#[tokio::test]
async fn a_known_delegation_outlives_an_accident_but_not_a_withdrawal() {
    let status = Arc::new(AtomicU64::new(200));
    let (_server, lookup, time) = setup({
        let status = status.clone();
        move |_| reply(status.load(Ordering::SeqCst) as u16, "", r#"{"m.server":"b.test"}"#)
    })
    .await;
    lookup.delegation("a.test").await.unwrap();
    status.store(502, Ordering::SeqCst);
    time.fetch_add(DEFAULT_TTL_MS, Ordering::SeqCst);
    assert_eq!(lookup.delegation("a.test").await.unwrap(), "b.test");
    status.store(404, Ordering::SeqCst);
    time.fetch_add(FIRST_FAILURE_TTL_MS, Ordering::SeqCst);
    lookup.delegation("a.test").await.unwrap_err();
    // And not for ever.
    status.store(200, Ordering::SeqCst);
    time.fetch_add(MAX_FAILURE_TTL_MS, Ordering::SeqCst);
    lookup.delegation("a.test").await.unwrap();
    status.store(502, Ordering::SeqCst);
    time.fetch_add(MAX_TTL_MS, Ordering::SeqCst);
    lookup.delegation("a.test").await.unwrap_err();
}

#[test]
fn headers_bound_the_time_to_live() {
    let ttl = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        time_to_live(&headers, START)
    };
    assert_eq!(ttl(&[]), DEFAULT_TTL_MS);
    assert_eq!(ttl(&[("cache-control", "public, max-age=7200")]), 2 * HOUR_MS);
    assert_eq!(ttl(&[("cache-control", "public"), ("cache-control", "Max-Age=7200")]), 2 * HOUR_MS);
    assert_eq!(ttl(&[("cache-control", "max-age=0")]), MIN_TTL_MS);
    assert_eq!(ttl(&[("cache-control", "max-age=99999999999999999")]), MAX_TTL_MS);
    assert_eq!(ttl(&[("cache-control", "max-age=soon")]), MIN_TTL_MS);
    assert_eq!(ttl(&[("cache-control", "no-store, max-age=7200")]), MIN_TTL_MS);
    let date = ("date", "Tue, 14 Nov 2023 20:00:00 GMT");
    let expires = ("expires", "Tue, 14 Nov 2023 23:00:00 GMT");
    assert_eq!(ttl(&[date, expires]), 3 * HOUR_MS);
    // START is 22:13:20 of that day.
    assert_eq!(ttl(&[expires]), 2_800_000);
    assert_eq!(ttl(&[("cache-control", "max-age=7200"), expires]), 2 * HOUR_MS);
    assert_eq!(ttl(&[("expires", "0")]), MIN_TTL_MS);
}
