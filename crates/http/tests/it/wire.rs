//! Requests as bytes on a socket, where a client library would tidy them up.

use actix_web::{App, HttpServer, rt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Sends bytes to a server of our own and reads until it hangs up.
async fn exchange(bytes: &str) -> String {
    let service = crate::common::service();
    let server = HttpServer::new(move || App::new().configure(|config| service.configure(config)))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let running = rt::spawn(server);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    handle.stop(false).await;
    running.await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

fn request(line: &str, rest: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: example.org\r\n{rest}")
}

const LAST: &str = "Connection: close\r\n\r\n";

/// GHSA-hgcg-p9gx-fq5f.
#[actix_web::test]
async fn paths_arrive_as_sent() {
    let put = "PUT /_matrix/client/v3/echo/a%2fb/%2e%2e";
    let answer = exchange(&request(put, LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#""args":["a/b",".."]"#), "{answer}");
    let answer = exchange(&request("GET //_matrix/client/versions", LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let absolute = "GET http://example.org/_matrix/client/versions";
    let answer = exchange(&request(absolute, LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let answer = exchange(&request("OPTIONS *", LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

/// GHSA-rfq8-j7rh-8hf2, GHSA-6wjm-9p2x-gvpm.
#[actix_web::test]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let chunks = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        10\r\n{\"a\":\"xxxxxxxx\"}\r\n5\r\n     \r\n0\r\n\r\n";
    let answer = exchange(&request("POST /_matrix/client/v3/small", chunks)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("M_TOO_LARGE"), "{answer}");
}

#[actix_web::test]
async fn a_panic_keeps_the_connection() {
    let first = request("GET /_matrix/client/v3/panic", "\r\n");
    let second = request("GET /_matrix/client/versions", LAST);
    let answer = exchange(&(first + &second)).await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[actix_web::test]
async fn head_answers_like_get_without_a_body() {
    let answer = exchange(&request("HEAD /_matrix/client/versions", LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[actix_web::test]
async fn a_body_that_is_made_while_it_is_sent() {
    let answer = exchange(&request("GET /_matrix/client/v3/stream", LAST)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"), "{answer}");
}

/// Without the last chunk, so that nobody takes it for whole.
#[actix_web::test]
async fn a_body_that_fails_is_cut_off() {
    let next = request("GET /_matrix/client/versions", LAST);
    let answer = exchange(&(request("GET /_matrix/client/v3/cut_off", "\r\n") + &next)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("3\r\n[1,\r\n"), "{answer}");
}
