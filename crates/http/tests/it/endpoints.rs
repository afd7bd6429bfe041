//! What clients see of the router, the decoder and the errors.

use crate::common::{SMALL, service};
use actix_web::{
    App,
    http::{Method, header},
    test::{self, TestRequest},
};
use serde_json::{Value, json};

struct Answer {
    status: u16,
    body: Value,
    headers: header::HeaderMap,
}

async fn send(request: TestRequest) -> Answer {
    let app = test::init_service(App::new().configure(|config| service().configure(config))).await;
    let response = test::call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = test::read_body(response).await;
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Answer { status, body, headers }
}

fn request(method: Method, uri: &str) -> TestRequest {
    TestRequest::with_uri(uri).method(method)
}

/// Sends the request and compares status and errcode.
async fn check(request: TestRequest, status: u16, errcode: &str) -> Answer {
    let answer = send(request).await;
    assert_eq!((answer.status, answer.body["errcode"].as_str()), (status, Some(errcode)));
    assert!(answer.body["error"].is_string());
    answer
}

const NAME: &str = "/_matrix/client/v3/profile/@ann:example.org/displayname";

#[actix_web::test]
async fn unknown_paths_are_404() {
    for path in [
        "/",
        "/_matrix/client/v3/nope",
        "/_matrix/client//versions",
        "/_matrix/client/versions/",
        "/_matrix/client/versions/more",
        "/_matrix/client/v3/echo//two",
        "/_matrix/client/v3/echo/one/two/three",
    ] {
        let answer = check(request(Method::GET, path), 404, "M_UNRECOGNIZED").await;
        assert_eq!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
    }
}

#[actix_web::test]
async fn a_known_path_with_a_wrong_method_is_405() {
    let wrong = request(Method::POST, "/_matrix/client/v3/account/whoami");
    let answer = check(wrong, 405, "M_UNRECOGNIZED").await;
    assert_eq!(answer.headers.get(header::ALLOW).unwrap(), "GET");
    let made_up = Method::from_bytes(b"BREW").unwrap();
    check(request(made_up, "/_matrix/client/versions"), 405, "M_UNRECOGNIZED").await;
}

/// What is planned is no endpoint yet, but a path that is known.
#[actix_web::test]
async fn a_planned_path_is_404_and_with_a_wrong_method_405() {
    let upload = |method| request(method, "/_matrix/media/v3/upload").set_payload(vec![0; 4096]);
    check(upload(Method::POST), 404, "M_UNRECOGNIZED").await;
    check(upload(Method::PATCH), 405, "M_UNRECOGNIZED").await;
    // Beside methods that are there, which stay.
    let echo = |method| request(method, "/_matrix/client/v3/echo/one/two");
    check(echo(Method::GET), 404, "M_UNRECOGNIZED").await;
    check(echo(Method::HEAD), 404, "M_UNRECOGNIZED").await;
    check(echo(Method::PATCH), 405, "M_UNRECOGNIZED").await;
    assert_eq!(send(echo(Method::PUT)).await.status, 200);
    let service = service();
    let mut served = service.endpoints();
    assert!(served.all(|(_, path)| path != "/_matrix/media/v3/upload"));
}

#[actix_web::test]
async fn preflights_are_answered_everywhere() {
    for path in [NAME, "/_matrix/client/v3/nope", "/_matrix/federation/v1/version"] {
        let answer = send(request(Method::OPTIONS, path)).await;
        assert_eq!(answer.status, 204);
        let header = |name| answer.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert!(header(header::ACCESS_CONTROL_ALLOW_METHODS).contains("PUT"));
        assert!(header(header::ACCESS_CONTROL_ALLOW_HEADERS).contains("Authorization"));
    }
}

#[actix_web::test]
async fn ruma_endpoints_answer_at_all_their_paths() {
    let answer = send(request(Method::GET, "/_matrix/client/versions")).await;
    assert_eq!((answer.status, &answer.body), (200, &json!({"versions": ["v1.11"]})));
    assert_eq!(answer.headers.get(header::CONTENT_TYPE).unwrap(), "application/json");
    assert_eq!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
    for version in ["r0", "v3"] {
        let path = format!("/_matrix/client/{version}/account/whoami");
        let who = request(Method::GET, &path).insert_header(("Authorization", "bEaReR secret"));
        assert_eq!(send(who).await.body["user_id"], "@ann:example.org");
    }
}

#[actix_web::test]
async fn tokens_are_missing_or_unknown() {
    let path = "/_matrix/client/v3/account/whoami";
    check(request(Method::GET, path), 401, "M_MISSING_TOKEN").await;
    let unknown = request(Method::GET, path).insert_header(("Authorization", "Bearer other"));
    assert_eq!(check(unknown, 401, "M_UNKNOWN_TOKEN").await.body["soft_logout"], true);
    let legacy = format!("{path}?x=1&access_token=secret");
    assert_eq!(send(request(Method::GET, &legacy)).await.status, 200);
}

#[actix_web::test]
async fn bodies_are_not_json_or_bad_json() {
    let put = |body: &'static str| {
        request(Method::PUT, NAME)
            .insert_header(("Authorization", "Bearer secret"))
            .set_payload(body)
    };
    assert_eq!(send(put(r#"{"displayname": "Ann"}"#)).await.body, json!({}));
    check(put("{"), 400, "M_NOT_JSON").await;
    check(put("name=Ann"), 400, "M_NOT_JSON").await;
    check(put(r#"{"displayname": 5}"#), 400, "M_BAD_JSON").await;
    check(put("[[]]"), 400, "M_BAD_JSON").await;
    // The wrong type comes before the broken syntax, but broken syntax it is.
    check(put(r#"{"displayname": 5, "#), 400, "M_NOT_JSON").await;
    let echo = |body: &'static [u8]| {
        request(Method::PUT, "/_matrix/client/v3/echo/one/two").set_payload(body)
    };
    check(echo(b"{"), 400, "M_NOT_JSON").await;
    check(echo(b"{\"a\": \"\xff\"}"), 400, "M_NOT_JSON").await;
    check(echo(b"[]"), 400, "M_BAD_JSON").await;
    assert_eq!(send(echo(b"")).await.body["body"], json!({}));
}

#[actix_web::test]
async fn path_arguments_are_checked() {
    let path = "/_matrix/client/v3/profile/ann/displayname";
    let bad = request(Method::PUT, path).insert_header(("Authorization", "Bearer secret"));
    check(bad.set_payload("{}"), 400, "M_INVALID_PARAM").await;
    let not_utf8 = request(Method::PUT, "/_matrix/client/v3/echo/%ff/two");
    check(not_utf8, 400, "M_INVALID_PARAM").await;
}

#[actix_web::test]
async fn path_arguments_are_decoded_once() {
    let path = "/_matrix/client/v3/echo/a%2Fb%2525%3F/c+d%20%C3%A9!:@?q=x+y%2B&q=z";
    let body = send(request(Method::PUT, path)).await.body;
    assert_eq!(body["args"], json!(["a/b%25?", "c+d é!:@"]));
    assert_eq!(body["query"], "x y+");
}

#[actix_web::test]
async fn a_literal_path_wins_and_inherits_the_other_methods() {
    let path = "/_matrix/client/v3/echo/literal/two";
    assert_eq!(send(request(Method::PUT, path)).await.status, 500);
    let body = send(request(Method::DELETE, path)).await.body;
    assert_eq!(body["args"], json!(["literal", "two"]));
}

#[actix_web::test]
async fn a_state_key_may_be_absent() {
    let state = "/_matrix/client/v3/rooms/!room:example.org/state/m.room.name";
    for (suffix, key) in [("", ""), ("/", ""), ("/key", "key"), ("/a%2Fb", "a/b")] {
        let answer = send(request(Method::GET, &format!("{state}{suffix}"))).await;
        assert_eq!(answer.body, json!(["m.room.name", key]), "suffix {suffix:?}");
    }
}

#[actix_web::test]
async fn large_bodies_are_refused() {
    let small = || request(Method::POST, "/_matrix/client/v3/small");
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(SMALL - 8));
    assert_eq!(body.len(), SMALL);
    assert_eq!(send(small().set_payload(body.clone())).await.status, 200);
    check(small().set_payload(format!("{body} ")), 413, "M_TOO_LARGE").await;
    // Announced only: refused before a byte of it is read.
    check(small().insert_header(("Content-Length", "17")), 413, "M_TOO_LARGE").await;
    let packed = small().insert_header(("Content-Encoding", "gzip")).set_payload("x");
    check(packed, 415, "M_UNKNOWN").await;
}

#[actix_web::test]
async fn internal_errors_and_panics_tell_nothing() {
    let fails = request(Method::PUT, "/_matrix/client/v3/echo/literal/two");
    let panics = "/_matrix/client/v3/panic";
    for request in [fails, request(Method::GET, panics), request(Method::POST, panics)] {
        let answer = check(request, 500, "M_UNKNOWN").await;
        assert_eq!(answer.body["error"], "Internal server error");
    }
}

#[actix_web::test]
async fn limits_say_when_to_retry() {
    let answer =
        check(request(Method::GET, "/_matrix/client/v3/login"), 429, "M_LIMIT_EXCEEDED").await;
    assert_eq!(answer.body["retry_after_ms"], 1500);
    assert_eq!(answer.headers.get(header::RETRY_AFTER).unwrap(), "2");
}

#[actix_web::test]
async fn federation_has_no_cors_and_reads_ruma_requests() {
    let path = "/_matrix/federation/v2/send_leave/!room:example.org/$leave";
    let leave = request(Method::PUT, path).insert_header(("Authorization", "Bearer secret"));
    let answer = send(leave.set_payload("{}")).await;
    assert_eq!((answer.status, answer.body), (200, json!({})));
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[test]
#[should_panic(expected = "two handlers for GET /_matrix/client/versions")]
fn an_endpoint_has_one_handler() {
    let _ = service().mount(exeunt_http::Routes::new(crate::common::Api).public_raw(
        exeunt_http::Method::GET,
        "/_matrix/client/versions",
        async |_, _| Err(exeunt_http::MatrixError::unrecognized()),
    ));
}
