use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::debts::{Debt, Debts};

/// A body whose chunks are owed until they are written.
#[derive(Debug)]
pub struct Settling<B> {
    body: B,
    debts: Debts,
    /// What is owed as long as the body has not ended.
    held: Option<Debt>,
}

impl<B> Settling<B> {
    /// With `held` the whole body is owed; without, as in a stream that waits for its client, only what there is of it.
    pub fn new(body: B, debts: &Debts, held: Option<Debt>) -> Self {
        Self { body, debts: debts.clone(), held }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Settling<B> {
    type Data = Owed;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Owed>, B::Error>>> {
        let this = &mut *self;
        // Before the answer leaves the hands of the body.
        let debt = this.held.is_none().then(|| this.debts.open());
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else { return Poll::Pending };
        let more = matches!(&frame, Some(Ok(_))) && !this.body.is_end_stream();
        let debt = match (debt, more) {
            (Some(debt), _) => Some(debt),
            (None, true) => Some(this.debts.open()),
            (None, false) => this.held.take(),
        };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| Owed { bytes, _debt: debt }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that somebody waits for. The connection drops them when it has written them.
#[derive(Debug)]
pub struct Owed {
    bytes: Bytes,
    _debt: Option<Debt>,
}

impl Buf for Owed {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::convert::Infallible;
    use std::task::Waker;

    /// Chunks; where there is none the body waits.
    struct Chunks(Vec<Option<&'static [u8]>>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            match self.0.remove(0) {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data))))),
                None => Poll::Pending,
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn next(body: &mut Settling<Chunks>) -> Option<Owed> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn an_answer_is_owed_until_its_last_chunk_is_written() {
        let debts = Debts::default();
        let mut body = Settling::new(Chunks(vec![Some(b"one"), Some(b"two")]), &debts, Some(debts.open()));
        let one = next(&mut body).unwrap();
        drop(one);
        assert_eq!(debts.count(), 1);
        let two = next(&mut body).unwrap();
        drop(body);
        assert_eq!((two.chunk(), debts.count()), (&b"two"[..], 1));
        drop(two);
        assert_eq!(debts.count(), 0);
    }

    #[test]
    fn a_stream_that_waits_owes_nothing() {
        let debts = Debts::default();
        let mut body = Settling::new(Chunks(vec![None, Some(b"one"), None]), &debts, None);
        assert!(next(&mut body).is_none());
        assert_eq!(debts.count(), 0);
        let one = next(&mut body).unwrap();
        assert!(next(&mut body).is_none());
        assert_eq!(debts.count(), 1);
        drop(one);
        assert_eq!(debts.count(), 0);
    }
}
