//! Who makes a request: the `X-Matrix` signature.
//!
//! Specification: server-server API, "Request Authentication".

use exeunt_core::{request_text, ruma::OwnedServerName, text};
use exeunt_http::{Authenticator, MatrixError, RequestHead, x_matrix};

use crate::FedApi;

impl Authenticator for FedApi {
    type Identity = OwnedServerName;

    async fn authenticate(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<OwnedServerName, MatrixError> {
        let credentials = x_matrix(head)?;
        let origin = credentials.origin;
        let ours = self.rooms.server_name();
        if credentials.destination.as_ref().is_some_and(|destination| destination != ours) {
            return Err(MatrixError::unauthorized("The request is for another server"));
        }
        if origin == ours {
            return Err(MatrixError::unauthorized("The request claims to be of this server"));
        }
        let content = match body {
            [] => None,
            body => Some(text::canonical(body).map_err(|_| MatrixError::not_json())?),
        };
        let signed = request_text(
            head.method.as_str(),
            &head.uri_path_and_query,
            &origin,
            credentials.destination.as_deref(),
            content.as_deref(),
        );
        let key_id = credentials.key.as_str();
        let keys = self.rooms.keys().for_request(&origin, key_id).await;
        let keys = keys.map_err(|error| MatrixError::internal(&error))?;
        let known = keys.get(&origin, key_id).filter(|known| self.now() <= known.valid_until);
        let signature = credentials.sig.encode();
        if !known.is_some_and(|known| known.key.verifies_text(&signed, &signature)) {
            return Err(MatrixError::unauthorized(format!("No valid signature by {origin}")));
        }
        (self.alive)(&origin);
        Ok(origin)
    }
}
