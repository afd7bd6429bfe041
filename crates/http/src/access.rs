use http::header::AUTHORIZATION;
pub use ruma::api::federation::authentication::XMatrix;

use crate::{MatrixError, RequestHead};

/// Turns a request into an identity: a client's session, or another server's name.
///
/// The future need not be `Send`: each actix worker is one thread.
pub trait Authenticator: Clone + Send + Sync + 'static {
    type Identity: Send + 'static;

    fn authenticate(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> impl Future<Output = Result<Self::Identity, MatrixError>>;

    /// Asked before a request of anyone is served: the place of limits by address.
    fn admit(&self, _head: &RequestHead) -> Result<(), MatrixError> {
        Ok(())
    }
}

/// The access token of a client: `Authorization: Bearer`, or the query argument that
/// client-server API v1.11 deprecates. The latter is not decoded, as tokens need no escapes.
pub fn access_token(head: &RequestHead) -> Option<&str> {
    let bearer = head.header(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let legacy =
        || head.query_string().split('&').find_map(|pair| pair.strip_prefix("access_token="));
    bearer.or_else(legacy).filter(|token| !token.is_empty())
}

/// The credentials of another server (server-server API, "Request authentication"). Some servers
/// send several `Authorization` headers, one for each of their keys: the first readable one counts.
pub fn x_matrix(head: &RequestHead) -> Result<XMatrix, MatrixError> {
    let mut failure = None;
    for value in head.headers.get_all(AUTHORIZATION) {
        let bare = || XMatrix::parse(quote(value.to_str().ok()?)?).ok();
        match XMatrix::try_from(value) {
            Ok(credentials) => return Ok(credentials),
            Err(error) => match bare() {
                Some(credentials) => return Ok(credentials),
                None => failure = Some(error),
            },
        }
    }
    Err(MatrixError::unauthorized(match failure {
        Some(error) => format!("Malformed Authorization header: {error}"),
        None => "Missing Authorization header".to_owned(),
    }))
}

/// Old servers send values with colons outside quotes, which the spec asks us to accept and the
/// grammar of HTTP forbids. No value of ours has a comma.
fn quote(value: &str) -> Option<String> {
    let (scheme, parameters) = value.trim().split_once(' ')?;
    let quoted: Option<Vec<String>> = parameters
        .split(',')
        .map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            Some(format!("{}=\"{}\"", name.trim(), value.trim().trim_matches('"')))
        })
        .collect();
    Some(format!("{scheme} {}", quoted?.join(",")))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    fn head(authorization: &[&'static str], query: &str) -> RequestHead {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        RequestHead {
            method: Method::GET,
            uri_path_and_query: format!("/x{query}"),
            headers,
            peer: None,
            template: "/x",
        }
    }

    #[test]
    fn access_tokens() {
        let check = |authorization: &[&'static str], query, token| {
            assert_eq!(access_token(&head(authorization, query)), token);
        };
        check(&["Bearer abc"], "", Some("abc"));
        check(&["bearer  abc "], "?access_token=other", Some("abc"));
        check(&["Bearer"], "", None);
        check(&["Bearer "], "", None);
        check(&["Basic abc"], "", None);
        check(&["Bearerabc"], "", None);
        check(&[], "?a=b&access_token=abc", Some("abc"));
        check(&[], "?access_token=", None);
        check(&[], "?xaccess_token=abc", None);
    }

    #[test]
    fn x_matrix_credentials() {
        let origin = |authorization: &[&'static str]| {
            x_matrix(&head(authorization, ""))
                .map(|found| (found.origin.to_string(), found.destination))
        };
        let quoted = r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:1",sig="YWJj""#;
        let (name, destination) = origin(&[quoted]).unwrap();
        assert_eq!(name, "a.example:8448");
        assert_eq!(destination.unwrap(), "b.example");
        let old = r#"x-matrix origin=a.example,key="ed25519:1",sig="YWJj""#;
        assert_eq!(origin(&[old]).unwrap(), ("a.example".to_owned(), None));
        assert_eq!(origin(&["Bearer abc", old]).unwrap().0, "a.example");
        for bad in [&[][..], &["Bearer abc"], &["X-Matrix origin=a.example"], &["X-Matrix"]] {
            let error = origin(bad).unwrap_err();
            assert_eq!((error.status, error.errcode.as_str()), (401, "M_UNAUTHORIZED"));
        }
    }

    /// The spec asks receivers to accept colons without quotes, as old servers send them.
    #[test]
    fn x_matrix_with_unquoted_colons() {
        let bare = "X-Matrix origin=a.example:8448, key=\"ed25519:1\",sig=YWJj";
        assert_eq!(x_matrix(&head(&[bare], "")).unwrap().origin, "a.example:8448");
        let doubled = "X-Matrix origin=a.example:8448,origin=b.example,key=ed25519:1,sig=YWJj";
        assert_eq!(x_matrix(&head(&[doubled], "")).unwrap_err().status, 401);
    }
}
