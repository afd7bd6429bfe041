//! Who makes a request: the `X-Matrix` signature.
//!
//! Specification: server-server API, "Request Authentication".

use exeunt_core::{request_object, ruma::OwnedServerName};
use exeunt_http::{Authenticator, MatrixError, RequestHead, x_matrix};
use serde_json::{Value, json};

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
        let content: Option<Value> = match body {
            [] => None,
            body => Some(serde_json::from_slice(body).map_err(|_| MatrixError::not_json())?),
        };
        let mut object = request_object(
            head.method.as_str(),
            &head.uri_path_and_query,
            &origin,
            credentials.destination.as_deref(),
            content.as_ref(),
        );
        let key_id = credentials.key.as_str();
        let signature = json!({ origin.as_str(): { key_id: credentials.sig.encode() } });
        object.insert("signatures".into(), signature);
        let keys = self.rooms.keys().for_request(&origin, key_id).await;
        let keys = keys.map_err(|error| MatrixError::internal(&error))?;
        if !keys.signed_by(&object, &origin, Some(self.now())) {
            return Err(MatrixError::unauthorized(format!("No valid signature by {origin}")));
        }
        (self.alive)(&origin);
        Ok(origin)
    }
}
