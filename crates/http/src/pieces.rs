//! Bodies that are handed to a connection piece by piece. What is handed over at once has to fit in
//! the connection's buffer, which then keeps that size while a client waits for the next answer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// Bytes of a piece, and what a listener is to have its connections buffer. With the head before it, it
/// fits into the 8 KiB that a connection of actix begins with.
pub const PIECE: usize = 7 * 1024;

/// A body of known length.
pub(crate) struct Pieces(pub Bytes);

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.0.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(self.0.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn the_pieces_are_the_whole() {
        for length in [0, 1, PIECE, 3 * PIECE + 5] {
            let whole: Bytes = (0..length).map(|n| n as u8).collect::<Vec<_>>().into();
            let mut body = Pieces(whole.clone());
            assert_eq!(body.size(), BodySize::Sized(length as u64));
            let mut context = Context::from_waker(futures_util::task::noop_waker_ref());
            let mut seen = Vec::new();
            while let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut body).poll_next(&mut context) {
                assert!(!piece.is_empty() && piece.len() <= PIECE);
                seen.extend_from_slice(&piece);
            }
            assert_eq!(seen, whole);
            assert_eq!(to_bytes(Pieces(whole.clone())).await.unwrap(), whole);
        }
    }
}
