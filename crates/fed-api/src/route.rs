//! Declaring routes. A route about one room passes the ACL gate before its handler runs.

use std::sync::Arc;

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName};
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::inbound::Admitted;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{FedApi, matrix_error};

/// The segment that makes a route one about a room. It comes before all others.
const ROOM: &str = "{room_id}";

/// The endpoints so far.
pub struct FedRoutes(Routes<FedApi>);

impl FedRoutes {
    pub fn new(state: FedApi) -> Self {
        Self(Routes::new(state))
    }

    pub fn finish(self) -> Routes<FedApi> {
        self.0
    }

    /// A route about one room, for a server that the room's ACL lets in. Its handler gets the
    /// [`Admitted`] that the methods of `Rooms` ask for.
    ///
    /// # Panics
    /// If the path names no room.
    pub fn room<F, Fut, R>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(FedApi, Admitted, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, MatrixError>> + 'static,
        R: Into<Reply>,
    {
        let first = path.split('/').find(|segment| segment.starts_with('{'));
        assert_eq!(first, Some(ROOM), "{path} is not about a room");
        let handler = Arc::new(handler);
        let gated = move |state: FedApi, origin: OwnedServerName, call: RawCall| {
            let handler = Arc::clone(&handler);
            async move {
                let room_id: OwnedRoomId = arg(&call, 0, "room id")?;
                let entry = state.rooms.admit(&origin, &room_id).await.map_err(matrix_error)?;
                Ok(handler(state, entry, call).await?.into())
            }
        };
        Self(self.0.authed_raw(method, path, gated))
    }

    /// A route for any server, about no room in particular.
    ///
    /// # Panics
    /// If the path names a room: such a route goes through the gate.
    pub fn server<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(FedApi, OwnedServerName, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, MatrixError>> + 'static,
    {
        assert!(!path.contains(ROOM), "{path} is about a room, so it needs the gate");
        let handler = Arc::new(handler);
        let plain = move |state: FedApi, origin: OwnedServerName, call: RawCall| {
            let handler = Arc::clone(&handler);
            async move { Ok(Reply::json(handler(state, origin, call).await?)) }
        };
        Self(self.0.authed_raw(method, path, plain))
    }

    /// A route for anyone, without a signature.
    ///
    /// # Panics
    /// If the path names a room.
    pub fn public<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(FedApi, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, MatrixError>> + 'static,
    {
        assert!(!path.contains(ROOM), "{path} is about a room, so it needs the gate");
        let handler = Arc::new(handler);
        let plain = move |state: FedApi, call: RawCall| {
            let handler = Arc::clone(&handler);
            async move { Ok(Reply::json(handler(state, call).await?)) }
        };
        Self(self.0.public_raw(method, path, plain))
    }
}

/// An argument of the path.
pub fn arg<T>(call: &RawCall, index: usize, what: &str) -> Result<T, MatrixError>
where
    T: for<'a> TryFrom<&'a str>,
{
    let text = call.args.get(index).map(String::as_str).unwrap_or_default();
    T::try_from(text).map_err(|_| MatrixError::invalid_param(format!("Not a {what}: {text:?}")))
}

/// An argument of the query that must be there.
pub fn query<T>(call: &RawCall, name: &str) -> Result<T, MatrixError>
where
    T: for<'a> TryFrom<&'a str>,
{
    let text = call.head.query(name);
    let text = text.ok_or_else(|| MatrixError::missing_param(format!("{name} is missing")))?;
    T::try_from(&text).map_err(|_| MatrixError::invalid_param(format!("{name} is malformed")))
}

/// The body, as a type.
pub fn body<T: DeserializeOwned>(call: &RawCall) -> Result<T, MatrixError> {
    let object = call.object()?;
    serde_json::from_value(Value::Object(object))
        .map_err(|error| MatrixError::bad_json(error.to_string()))
}
