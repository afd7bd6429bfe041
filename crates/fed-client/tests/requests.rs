//! Requests over real TLS connections.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use exeunt_core::key::{KeyRing, KnownKey, VerifyKey};
use exeunt_core::ruma::api::federation::authentication::XMatrix;
use exeunt_core::ruma::{OwnedServerName, server_name};
use exeunt_core::{Object, Signer, request_object};
use exeunt_fed_client::{
    Destination, Entry, FederationClient, Listing, Options, Request, RequestError, SetupError, Step,
};
use serde_json::{Value, json};
use support::{Ca, Received, Reply, TestServer, json as json_reply, reply};

const NOW: u64 = 1_700_000_000_000;

fn signer() -> Arc<Signer> {
    Arc::new(Signer::new("origin.test".try_into().unwrap(), "ed25519:a1", &[7; 32]).unwrap())
}

/// A client that reaches `name` at `server` and trusts `ca`.
fn client(name: &str, server: &TestServer, ca: &Ca) -> FederationClient {
    let file = ca.file();
    let mut options = Options::new(Arc::new(|| NOW));
    options.extra_ca = Some(file.path().into());
    options.overrides = BTreeMap::from([(name.try_into().unwrap(), server.address)]);
    FederationClient::new(signer(), options).unwrap()
}

/// A server called `remote.test`, and a client for it.
async fn pair(
    handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (TestServer, FederationClient) {
    let ca = Ca::new("ours");
    let server = TestServer::start(ca.issue("remote.test"), handler).await;
    let client = client("remote.test", &server, &ca);
    (server, client)
}

fn get(path: &str) -> Request<'_> {
    Request::get(server_name!("remote.test"), path)
}

/// What a request to a server that answers so comes to.
async fn outcome(
    handler: impl Fn() -> Reply + Send + Sync + 'static,
) -> Result<Value, RequestError> {
    let (_server, client) = pair(move |_| handler()).await;
    client.request(get("/_matrix/x")).await
}

async fn unreachable(tls: rustls::ServerConfig, trusted: &Ca) -> String {
    let server = TestServer::start(tls, |_| json_reply("{}")).await;
    let error = client("remote.test", &server, trusted).request(get("/_matrix/x")).await;
    assert!(server.seen().is_empty(), "nothing is sent before the certificate is checked");
    match error {
        Err(RequestError::Unreachable(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn misbehaved(outcome: Result<Value, RequestError>) -> String {
    match outcome {
        Err(RequestError::Misbehaved(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_the_extra_ca_is_accepted() {
    assert_eq!(outcome(|| json_reply(r#"{"a":1}"#)).await.unwrap(), json!({"a": 1}));
}

#[tokio::test]
async fn bad_certificates_are_explained() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let text = unreachable(theirs.issue("remote.test"), &ours).await;
    assert!(text.contains("add the CA to federation.extra_ca"), "{text}");

    let text = unreachable(ours.issue("other.test"), &ours).await;
    assert!(text.contains("for another name") && text.contains("other.test"), "{text}");
    assert!(text.contains("remote.test is needed"), "{text}");

    let expired = |p: &mut rcgen::CertificateParams| {
        p.not_before = rcgen::date_time_ymd(2020, 1, 1);
        p.not_after = rcgen::date_time_ymd(2020, 2, 1);
    };
    let text = unreachable(ours.issue_with("remote.test", expired), &ours).await;
    assert!(text.contains("has expired (since Sat, 01 Feb 2020 00:00:00 GMT; this"), "{text}");
    assert!(text.contains("correct the clock (NTP) if it is wrong"), "{text}");

    let early = |p: &mut rcgen::CertificateParams| p.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let text = unreachable(ours.issue_with("remote.test", early), &ours).await;
    assert!(text.contains("is not valid yet (from Sat, 01 Jan 4000 00:00:00 GMT; "), "{text}");
    assert!(text.contains("correct the clock (NTP) if it is wrong"), "{text}");
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let ca = Ca::new("ours");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, _) = pair(|_| json_reply("{}")).await;
    let server = TestServer { address: listener.local_addr().unwrap(), ..server };
    drop(listener);
    let error = client("remote.test", &server, &ca).request(get("/_matrix/x")).await;
    assert!(
        matches!(&error, Err(RequestError::Unreachable(t)) if t.contains("refused")),
        "{error:?}"
    );
}

#[test]
fn a_bad_ca_file_is_named() {
    let mut options = Options::new(Arc::new(|| NOW));
    options.extra_ca = Some("/nonexistent/ca.pem".into());
    let error = FederationClient::new(signer(), options.clone()).err().unwrap();
    assert!(matches!(error, SetupError::CaUnreadable { .. }));
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");

    for text in ["not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        options.extra_ca = Some(file.path().into());
        let error = FederationClient::new(signer(), options.clone()).err().unwrap();
        assert!(matches!(error, SetupError::CaInvalid { .. }), "{error}");
        assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, client) = pair(|_| reply(307, "location: /elsewhere\r\n", "{}")).await;
    let text = misbehaved(client.request(get("/_matrix/x")).await);
    assert!(text.contains("redirect (307) to /elsewhere"), "{text}");
    assert_eq!(server.seen().len(), 1);
}

/// GHSA-rfq8-j7rh-8hf2, GHSA-6wjm-9p2x-gvpm.
#[tokio::test]
async fn long_bodies_are_cut_off() {
    let (_server, client) = pair(|_| Reply::Endless).await;
    let limited = Request { max_bytes: Some(10_000), ..get("/_matrix/x") };
    assert_eq!(misbehaved(client.request(limited).await), "longer than 10000 bytes");

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![b' '; 20_000_000]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 30_000);
    let (server, client) = pair(move |_| reply(200, "content-encoding: gzip\r\n", &bomb)).await;
    let limited = Request { max_bytes: Some(100_000), ..get("/_matrix/x") };
    assert_eq!(misbehaved(client.request(limited).await), "longer than 100000 bytes");
    assert!(server.seen()[0].headers["accept-encoding"].contains("gzip"));
}

/// GHSA-rfq8-j7rh-8hf2.
#[tokio::test]
async fn a_gzip_body_is_unpacked_and_a_broken_one_misbehaves() {
    let pack = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let good = pack(r#"{"b":[1,2]}"#);
    let answer = outcome(move || reply(200, "content-encoding: gzip\r\n", &good)).await;
    assert_eq!(answer.unwrap(), json!({"b": [1, 2]}));
    let text =
        misbehaved(outcome(|| reply(200, "content-encoding: gzip\r\n", "{}{}{}{}{}{}")).await);
    assert!(text.contains("cannot be unpacked"), "{text}");
}

#[tokio::test]
async fn a_body_cut_short_is_unreachable() {
    let cut = || Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":".to_vec());
    let error = outcome(cut).await;
    assert!(matches!(error, Err(RequestError::Unreachable(_))), "{error:?}");
}

#[tokio::test]
async fn a_hanging_server_times_out() {
    let (_server, client) = pair(|_| Reply::Hang).await;
    let short = Request { timeout: Some(Duration::from_millis(300)), ..get("/_matrix/x") };
    let error = client.request(short).await.unwrap_err();
    assert_eq!(error, RequestError::Unreachable("no answer within 0.3 s".into()));
}

/// A byte now and then, in the body or before it, keeps nobody.
#[tokio::test]
async fn a_dripping_server_times_out() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec();
    for first in [head, b"HTTP/1.1 200 OK\r\nx: ".to_vec()] {
        let (_server, client) = pair(move |_| Reply::Drip(first.clone())).await;
        let short = Request { timeout: Some(Duration::from_millis(300)), ..get("/_matrix/x") };
        let error = client.request(short).await.unwrap_err();
        assert_eq!(error, RequestError::Unreachable("no answer within 0.3 s".into()));
    }
}

#[tokio::test]
async fn a_web_page_misbehaves() {
    let page = || reply(200, "content-type: text/html; charset=utf-8\r\n", "<html></html>");
    let text = misbehaved(outcome(page).await);
    assert!(text.contains("HTML page"), "{text}");
}

#[tokio::test]
async fn errors_are_refusals_with_bounded_clean_text() {
    let refused = |status, errcode: Option<&str>, message: &str| {
        let (errcode, message) = (errcode.map(str::to_owned), message.to_owned());
        Err(RequestError::Refused { status, errcode, message })
    };
    let error = outcome(|| reply(403, "", r#"{"errcode":"M_FORBIDDEN","error":"no\u0007\nway"}"#));
    assert_eq!(error.await, refused(403, Some("M_FORBIDDEN"), "noway"));
    let error = outcome(|| reply(502, "", "<html>bad gateway</html>"));
    assert_eq!(error.await, refused(502, None, "Bad Gateway"));
    let error = outcome(|| reply(400, "", r#"{"errcode":[],"error":7}"#));
    assert_eq!(error.await, refused(400, None, "Bad Request"));
    let long = json!({"errcode": "M".repeat(9_000), "error": "é".repeat(9_000)}).to_string();
    let error = outcome(move || reply(400, "", &long));
    assert_eq!(error.await, refused(400, Some(&"M".repeat(500)), &"é".repeat(500)));
    let error = outcome(|| reply(500, "", vec![b'x'; 1_000_000]));
    assert_eq!(error.await, refused(500, None, "Internal Server Error"));
}

#[tokio::test]
async fn connections_are_kept() {
    let (server, client) = pair(|_| json_reply("{}")).await;
    for _ in 0..5 {
        client.request(get("/_matrix/x")).await.unwrap();
        client.clone().request(get("/_matrix/y")).await.unwrap();
    }
    assert_eq!((server.seen().len(), server.accepted()), (10, 1));
}

/// Checks a request the way its receiver does.
fn verify(received: &Received) -> bool {
    let header = XMatrix::parse(&received.headers["authorization"]).unwrap();
    assert_eq!(header.origin, "origin.test");
    let content: Option<Value> = match &received.body[..] {
        [] => None,
        body => Some(serde_json::from_slice(body).unwrap()),
    };
    let mut object: Object = request_object(
        &received.method,
        &received.path,
        &header.origin,
        header.destination.as_deref(),
        content.as_ref(),
    );
    let signature = json!({ "origin.test": { header.key.as_str(): header.sig.encode() } });
    object.insert("signatures".into(), signature);
    let mut ring = KeyRing::default();
    let key = VerifyKey::from_base64(&signer().public()).unwrap();
    let known = KnownKey { key, valid_until: NOW };
    ring.insert("origin.test".try_into().unwrap(), "ed25519:a1".into(), known);
    ring.signed_by(&object, server_name!("origin.test"), Some(NOW))
}

#[tokio::test]
async fn the_receiver_can_verify_requests() {
    let (server, client) = pair(|_| json_reply("{}")).await;
    let path = "/_matrix/federation/v1/x/%21a%3Ab/%24c?ver=1&ver=2&q=%2Fa%20b";
    client.request(get(path)).await.unwrap();
    let body = json!({"pdus": [{"z": 1, "a": "ü\"\\"}], "edus": []});
    let to = server_name!("remote.test");
    client.request(Request::put(to, path, &body)).await.unwrap();
    client.request(Request::post(to, path, &json!({}))).await.unwrap();

    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for received in &seen {
        assert_eq!(received.path, path);
        assert_eq!(received.headers["host"], "remote.test");
        assert!(verify(received), "{received:?}");
    }
    assert_eq!(seen[1].headers["content-type"], "application/json");
    let mut changed = seen[1].clone();
    changed.body = br#"{"pdus":[]}"#.to_vec();
    assert!(!verify(&changed));
    let mut changed = seen[0].clone();
    changed.path.push('1');
    assert!(!verify(&changed));
}

#[tokio::test]
async fn a_path_that_would_change_on_the_way_is_not_sent() {
    let (server, client) = pair(|_| json_reply("{}")).await;
    for path in ["no-slash", "/a/../b", "/a/%2e%2E/b", "/a b", "/a#b", "/a?b='", "/ü"] {
        let error = client.request(get(path)).await;
        assert!(matches!(error, Err(RequestError::Unsendable(_))), "{path}: {error:?}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_static_route_keeps_host_and_certificate_name() {
    let ca = Ca::new("ours");
    let server = TestServer::start(ca.issue("remote.test"), |_| json_reply("{}")).await;
    let name: OwnedServerName = "remote.test:1234".try_into().unwrap();
    let client = client(name.as_str(), &server, &ca);
    client.request(Request::get(&name, "/_matrix/x")).await.unwrap();
    assert_eq!(server.seen()[0].headers["host"], "remote.test:1234");
    let Destination { host, certificate, addresses, step, .. } =
        client.resolve(&name).await.unwrap();
    assert_eq!((&*host, &*certificate), ("remote.test:1234", "remote.test"));
    assert_eq!((addresses, step), (vec![server.address], Step::Override));
}

#[tokio::test]
async fn addresses_need_no_discovery_and_a_certificate_for_the_address() {
    let ca = Ca::new("ours");
    let server = TestServer::start(ca.issue("127.0.0.1"), |_| json_reply("{}")).await;
    let name: OwnedServerName = server.address.to_string().try_into().unwrap();
    let client = client("unused.test", &server, &ca);
    client.request(Request::get(&name, "/_matrix/x")).await.unwrap();
    assert_eq!(server.seen()[0].headers["host"], name.as_str());
}

/// The key document of `remote.test`.
fn key_document(server: &str, valid_until: u64) -> Object {
    let signer = Signer::new("remote.test".try_into().unwrap(), "ed25519:k", &[9; 32]).unwrap();
    let Value::Object(mut document) = json!({
        "server_name": server,
        "valid_until_ts": valid_until,
        "verify_keys": { "ed25519:k": { "key": signer.public() } },
        "old_verify_keys": {},
    }) else {
        unreachable!()
    };
    signer.sign_object(&mut document);
    document
}

#[tokio::test]
async fn keys_are_fetched_unsigned_and_checked() {
    let good = Value::Object(key_document("remote.test", NOW + 1_000)).to_string();
    let (server, client) = pair(move |_| json_reply(&good)).await;
    let keys = client.server_keys(server_name!("remote.test")).await.unwrap();
    assert_eq!(keys.keys["ed25519:k"].valid_until, NOW + 1_000);
    let seen = &server.seen()[0];
    assert_eq!((&*seen.method, &*seen.path), ("GET", "/_matrix/key/v2/server"));
    assert!(!seen.headers.contains_key("authorization"));

    let bad = Value::Object(key_document("other.test", NOW + 1_000)).to_string();
    let (_server, client) = pair(move |_| json_reply(&bad)).await;
    let error = client.server_keys(server_name!("remote.test")).await.unwrap_err();
    let text = "the key document is of another server";
    assert_eq!(error, RequestError::Misbehaved(text.into()));
}

const LISTING: Listing = Listing { lists: &["state"], values: &["event"] };

/// What a request for a list comes to: the rest, and the entries.
async fn listing(
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Result<Value, RequestError>, Vec<String>) {
    let (_server, client) = pair(move |_| reply()).await;
    let (entries, mut coming) = tokio::sync::mpsc::channel::<Entry>(1);
    let request = Request { max_bytes: Some(1_000_000), ..get("/_matrix/x") };
    let taken = async {
        let mut taken = Vec::new();
        while let Some((_, json)) = coming.recv().await {
            taken.push(json.get().to_owned());
        }
        taken
    };
    tokio::join!(client.request_listing(request, LISTING, entries), taken)
}

#[tokio::test]
async fn a_list_comes_entry_by_entry() {
    let entry = format!("\"{}\"", "e".repeat(10_000));
    let list = vec![entry.clone(); 90].join(", ");
    let (rest, entries) =
        listing(move || json_reply(&format!(r#"{{"state": [{list}], "x": [1], "event": 2}}"#)))
            .await;
    assert_eq!(rest, Ok(json!({ "event": 2 })));
    assert_eq!(entries, vec![entry; 90]);
}

#[tokio::test]
async fn a_list_that_goes_wrong() {
    let (refused, _) = listing(|| reply(403, "", r#"{"errcode": "M_FORBIDDEN"}"#)).await;
    assert!(matches!(refused, Err(RequestError::Refused { status: 403, .. })), "{refused:?}");
    assert!(misbehaved(listing(|| json_reply(r#"{"state": {}}"#)).await.0).contains("a list"));
    assert!(misbehaved(listing(|| Reply::Endless).await.0).contains("longer than 1000000 bytes"));
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"state\": [1, {\"a\": 2";
    let (cut, entries) = listing(|| Reply::Cut(half.to_vec())).await;
    assert!(matches!(cut, Err(RequestError::Unreachable(_))), "{cut:?}");
    assert_eq!(entries, ["1"], "what is cut is no entry");
    // Entries go over a channel of one place, so that each costs a change of threads.
    let entry = format!("\"{}\",", "e".repeat(100));
    let endless = move || reply(200, "", format!(r#"{{"state": [{}"#, entry.repeat(12_000)));
    assert!(misbehaved(listing(endless).await.0).contains("longer than"));
}

/// Whoever loses interest in the entries ends the request.
#[tokio::test]
async fn entries_that_nobody_takes_end_the_request() {
    let (_server, client) = pair(|_| json_reply(r#"{"state": [1, 2, 3], "event": 1}"#)).await;
    let (entries, coming) = tokio::sync::mpsc::channel(1);
    drop(coming);
    let outcome = client.request_listing(get("/_matrix/x"), LISTING, entries).await;
    assert!(misbehaved(outcome).contains("not wanted"));
}

/// A notary's documents are checked by their own signatures; the expired ones are of use.
#[tokio::test]
async fn keys_of_others_are_had_from_a_notary() {
    let other = Signer::new("other.test".try_into().unwrap(), "ed25519:o", &[9; 32]).unwrap();
    let document = |valid_until: u64| {
        let mut document = Object::new();
        document.insert("server_name".into(), json!("other.test"));
        document.insert("valid_until_ts".into(), json!(valid_until));
        document.insert("verify_keys".into(), json!({ "ed25519:o": { "key": other.public() } }));
        other.sign_object(&mut document);
        document
    };
    let (good, old, mut forged) = (document(NOW + 1), document(NOW - 1), document(NOW + 2));
    forged["valid_until_ts"] = json!(NOW + 3);
    let answer = json!({ "server_keys": [good, old, forged, "none"] }).to_string();
    let (server, client) = pair(move |_| json_reply(&answer)).await;
    let wanted = BTreeMap::from([("ed25519:o".to_owned(), 7)]);
    let wanted = BTreeMap::from([(server_name!("other.test").to_owned(), wanted)]);
    let keys = client.keys_by_notary(server_name!("remote.test"), &wanted).await.unwrap();
    let until: Vec<_> = keys.iter().map(|keys| keys.valid_until).collect();
    assert_eq!(until, [NOW + 1, NOW - 1]);
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("POST", "/_matrix/key/v2/query"));
    let criteria = json!({ "other.test": { "ed25519:o": { "minimum_valid_until_ts": 7 } } });
    let asked: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(asked, json!({ "server_keys": criteria }));
}
