//! Reading answers: bounded, unpacked, JSON.

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use crate::error::{RequestError, clean};

/// How much of an error's body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Reads the answer to a federation request; `max_bytes` counts what is unpacked.
pub(crate) async fn read(response: Response, max_bytes: usize) -> Result<Value, RequestError> {
    let html = is_html(&response);
    let body = bytes(response, max_bytes).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let html = if html { ", but an HTML page; is this a web server?" } else { "" };
        RequestError::Misbehaved(format!("not JSON{html} ({error})"))
    })
}

/// The answer, if its status is one of success.
pub(crate) async fn success(response: Response) -> Result<Response, RequestError> {
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        let to = to.map(|to| format!(" to {}", clean(to))).unwrap_or_default();
        return Err(RequestError::Misbehaved(format!(
            "a redirect ({}){to} where the federation API has none",
            status.as_u16()
        )));
    }
    if !status.is_success() {
        return Err(refusal(status, bytes(response, MAX_ERROR_BODY).await.unwrap_or_default()));
    }
    Ok(response)
}

fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

/// An error as the specification has it, or the status' own words. A body that cannot be read
/// does not change what the status says.
fn refusal(status: StatusCode, body: Vec<u8>) -> RequestError {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(clean);
    let message = text("error").unwrap_or_else(|| {
        status.canonical_reason().unwrap_or("an error without an explanation").into()
    });
    RequestError::Refused { status: status.as_u16(), errcode: text("errcode"), message }
}

/// The unpacked body, if it is no longer than `max_bytes`.
pub(crate) async fn bytes(
    mut response: Response,
    max_bytes: usize,
) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| RequestError::from_http(&e))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(RequestError::Misbehaved(format!("longer than {max_bytes} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
