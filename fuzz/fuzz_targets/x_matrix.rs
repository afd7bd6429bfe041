//! The `Authorization` header of other servers, a line of the input for each: what is read is read
//! again in every form in which servers write it.

#![no_main]

use exeunt_http::{Method, RequestHead, XMatrix, x_matrix};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n');
    let Ok(read) = parse(lines.filter_map(|line| HeaderValue::from_bytes(line).ok())) else {
        return;
    };
    check(&read, &read.to_string());
    // As our own client writes it.
    let XMatrix { origin, key, sig, .. } = &read;
    let sig = sig.encode();
    let to = read.destination.as_ref().map(|name| format!("destination=\"{name}\","));
    let to = to.unwrap_or_default();
    check(&read, &format!("X-Matrix origin=\"{origin}\",{to}key=\"{key}\",sig=\"{sig}\""));
    // As old servers do: without quotes.
    let to = to.replace('"', "");
    check(&read, &format!("X-Matrix origin={origin},{to}key=\"{key}\",sig=\"{sig}\""));
});

fn check(read: &XMatrix, written: &str) {
    let value = HeaderValue::from_str(written).expect("nothing of it needs escapes");
    let again = parse(std::iter::once(value)).expect("what was read is read again");
    assert_eq!(again.origin, read.origin, "{written}");
    assert_eq!(again.destination, read.destination, "{written}");
    assert_eq!(again.key, read.key, "{written}");
    assert_eq!(again.sig, read.sig, "{written}");
}

fn parse(values: impl Iterator<Item = HeaderValue>) -> Result<XMatrix, exeunt_http::MatrixError> {
    let headers: HeaderMap = values.map(|value| (AUTHORIZATION, value)).collect();
    x_matrix(&RequestHead {
        method: Method::GET,
        uri_path_and_query: "/x".into(),
        headers,
        peer: None,
        template: "/x",
    })
}
