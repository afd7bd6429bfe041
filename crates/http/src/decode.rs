//! From bytes to ruma's requests and from ruma's responses to bytes.

use bytes::BytesMut;
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _, OutgoingResponse, OutgoingResponseExt as _,
    error::{DeserializationError, FromHttpRequestError, HeaderDeserializationError},
};
use serde_json::Value;

use crate::{Body, MatrixError, RawCall, Reply, misfit};

/// Reads a typed request. An empty body counts as `{}` where JSON is wanted.
pub(crate) fn request<T: IncomingRequest>(call: &RawCall) -> Result<T, MatrixError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let read =
        |body| T::try_from_http_request(http_request(call, body)?, &args).map_err(Failure::Ruma);
    let result = match read(&call.body) {
        Err(Failure::Ruma(FromHttpRequestError::Deserialization(DeserializationError::Json(
            _,
        )))) if call.body.is_empty() => read(b"{}"),
        result => result,
    };
    result.map_err(|failure| match failure {
        Failure::Uri => MatrixError::invalid_param("The path or query is malformed"),
        Failure::Ruma(error) => request_error(error, call),
    })
}

enum Failure {
    Uri,
    Ruma(FromHttpRequestError),
}

fn http_request<'a>(call: &RawCall, body: &'a [u8]) -> Result<http::Request<&'a [u8]>, Failure> {
    let mut request = http::Request::builder()
        .method(call.head.method.clone())
        .uri(call.head.uri_path_and_query.as_str())
        .body(body)
        .map_err(|_| Failure::Uri)?;
    *request.headers_mut() = call.head.headers.clone();
    Ok(request)
}

fn request_error(error: FromHttpRequestError, call: &RawCall) -> MatrixError {
    let error = match error {
        FromHttpRequestError::Deserialization(error) => error,
        FromHttpRequestError::MethodMismatch { .. } => return MatrixError::wrong_method(),
        error => return MatrixError::unknown(misfit::plain(&error.to_string())),
    };
    if let Some(error) = misfit::wrong_id(call) {
        return error;
    }
    match error {
        DeserializationError::Json(error) => json_error(&error, &call.body),
        // ruma reads path arguments with the error type of the query.
        DeserializationError::Query(error) => {
            let message = misfit::plain(&error.to_string());
            if message.starts_with("missing field") {
                MatrixError::missing_param(message)
            } else {
                MatrixError::invalid_param(message)
            }
        }
        DeserializationError::Header(error @ HeaderDeserializationError::MissingHeader(_)) => {
            MatrixError::missing_param(error.to_string())
        }
        error => MatrixError::invalid_param(misfit::plain(&error.to_string())),
    }
}

/// Tells a body that is not JSON from JSON of the wrong shape. A typed reader may stop at the
/// shape before it meets broken syntax, hence the second reading.
pub(crate) fn json_error(error: &serde_json::Error, body: &[u8]) -> MatrixError {
    if !body.is_empty() && serde_json::from_slice::<Value>(body).is_err() {
        MatrixError::not_json()
    } else {
        MatrixError::bad_json(misfit::plain(&error.to_string()))
    }
}

pub(crate) fn response<R: OutgoingResponse>(response: R) -> Result<Reply, MatrixError> {
    let response = response
        .try_into_http_response::<BytesMut>()
        .map_err(|error| MatrixError::internal(&error))?;
    let (parts, body) = response.into_parts();
    Ok(Reply { status: parts.status, headers: parts.headers, body: Body::Whole(body.freeze()) })
}
