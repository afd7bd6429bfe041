use std::sync::Arc;

use http::Method;
use ruma::api::{IncomingRequest, path_builder::PathBuilder as _};

use crate::{
    Authenticator, DEFAULT_BODY_LIMIT, MatrixError, RawCall, Reply, RequestHead, decode,
    tree::{Endpoint, Handler, Table},
};

/// The endpoints of one API. `S` is its state, cloned for each request.
///
/// A handler runs to its end even if the client goes away, unless the method is `GET`.
pub struct Routes<S> {
    state: S,
    body_limit: usize,
    pub(crate) table: Table,
}

impl<S: Authenticator> Routes<S> {
    pub fn new(state: S) -> Self {
        Self { state, body_limit: DEFAULT_BODY_LIMIT, table: Table::default() }
    }

    /// The largest body, in bytes, for the endpoints that follow.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// An endpoint of ruma, at all its stable and unstable paths, for callers we know.
    pub fn authed<T, F, Fut>(self, handler: F) -> Self
    where
        T: IncomingRequest + 'static,
        F: Fn(S, S::Identity, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T::OutgoingResponse, MatrixError>> + 'static,
    {
        let handler = self.handler(async move |state: S, call: RawCall| {
            let identity = Box::pin(state.authenticate(&call.head, &call.body)).await?;
            let request = decode::request::<T>(&call)?;
            drop(call);
            decode::response(handler(state, identity, request).await?)
        });
        self.endpoint::<T>(handler)
    }

    /// An endpoint of ruma for anyone.
    pub fn public<T, F, Fut>(self, handler: F) -> Self
    where
        T: IncomingRequest + 'static,
        F: Fn(S, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T::OutgoingResponse, MatrixError>> + 'static,
    {
        self.public_with_head(move |state, _, request| handler(state, request))
    }

    /// An endpoint of ruma for anyone, whose handler wants the peer or the headers too.
    pub fn public_with_head<T, F, Fut>(self, handler: F) -> Self
    where
        T: IncomingRequest + 'static,
        F: Fn(S, RequestHead, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T::OutgoingResponse, MatrixError>> + 'static,
    {
        let handler = self.handler(async move |state: S, call: RawCall| {
            state.admit(&call.head)?;
            let request = decode::request::<T>(&call)?;
            decode::response(handler(state, call.head, request).await?)
        });
        self.endpoint::<T>(handler)
    }

    /// An endpoint that ruma does not declare, or that reads its body itself. Arguments of the
    /// path are whole segments in braces: `/_matrix/client/v3/rooms/{room_id}/leave`.
    pub fn authed_raw<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(S, S::Identity, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, MatrixError>> + 'static,
    {
        let handler = self.handler(async move |state: S, call: RawCall| {
            // In a box, which a request that waits for long does not keep.
            let identity = Box::pin(state.authenticate(&call.head, &call.body)).await?;
            handler(state, identity, call).await
        });
        self.path(method, path, handler)
    }

    /// As [`Self::authed_raw`], for anyone.
    pub fn public_raw<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(S, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, MatrixError>> + 'static,
    {
        let handler = self.handler(async move |state: S, call: RawCall| {
            state.admit(&call.head)?;
            handler(state, call).await
        });
        self.path(method, path, handler)
    }

    /// An endpoint of the specification that is not built: it answers like an unknown path, and
    /// other methods at its path get 405. Panics if the endpoint is there: then it is built.
    pub fn planned(mut self, method: Method, path: &'static str) -> Self {
        self.table.insert_planned(&method, path);
        self
    }

    /// What is served below one path so far, below another too, except what is there already.
    /// Handlers and metrics see the first path.
    pub fn also_below(mut self, path: &str, other: &str) -> Self {
        self.table.copy(path, other);
        self
    }

    fn handler<F>(&self, run: F) -> Handler
    where
        F: AsyncFn(S, RawCall) -> Result<Reply, MatrixError> + Send + Sync + 'static,
    {
        let state = self.state.clone();
        let run = Arc::new(run);
        Arc::new(move |call| {
            let (state, run) = (state.clone(), Arc::clone(&run));
            Box::pin(async move { run(state, call).await })
        })
    }

    fn endpoint<T: IncomingRequest>(mut self, handler: Handler) -> Self {
        for path in T::PATH_BUILDER.all_paths() {
            self = self.path(T::METHOD, path, Arc::clone(&handler));
            // ruma reads an absent state key as the empty one, but lists the long path only.
            if let Some(short) = path.strip_suffix("{state_key}") {
                self = self.path(T::METHOD, short, Arc::clone(&handler));
                self = self.path(T::METHOD, short.trim_end_matches('/'), Arc::clone(&handler));
            }
        }
        self
    }

    fn path(mut self, method: Method, template: &'static str, handler: Handler) -> Self {
        let body_limit = self.body_limit;
        self.table.insert(&method, Endpoint { template, body_limit, handler });
        self
    }
}
