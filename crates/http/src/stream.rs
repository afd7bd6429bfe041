//! Bodies that are made while they are sent.

use std::{
    cell::RefCell,
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::rt::{self, task::JoinHandle};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::LocalBoxStream};

/// How long a client may take over a body that is made while it is sent.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(600);

type Chunks = LocalBoxStream<'static, Result<Bytes, Box<dyn Error>>>;

/// A body that is given up after [`STREAM_TIMEOUT`], with all that it holds, even if the client
/// does not read and nobody asks for more of it.
pub(crate) struct Timed {
    template: &'static str,
    /// `None` once it is given up.
    chunks: Rc<RefCell<Option<Chunks>>>,
    timer: JoinHandle<()>,
}

impl Timed {
    pub fn new(template: &'static str, chunks: Chunks) -> Self {
        let chunks = Rc::new(RefCell::new(Some(chunks)));
        let late = Rc::clone(&chunks);
        let timer = rt::spawn(async move {
            rt::time::sleep(STREAM_TIMEOUT).await;
            late.take();
        });
        Self { template, chunks, timer }
    }
}

impl Stream for Timed {
    type Item = Result<Bytes, Box<dyn Error>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut *self.chunks.borrow_mut() {
            Some(chunks) => chunks.poll_next_unpin(cx),
            None => Poll::Ready(Some(Err("the client took too long".into()))),
        };
        if let Poll::Ready(Some(Err(error))) = &next {
            tracing::info!(path = self.template, error, "an answer is cut off");
        }
        next
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
