//! A call with one message must bring it in time, as HTTP wants it of its bodies: who sends a byte now and then holds a
//! connection, and what has arrived, for ever otherwise.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use trireme_protocol::{PIECE_TIME, SLOWEST, time_for};

/// A body that fails with DEADLINE_EXCEEDED if it comes too slowly.
pub(crate) struct Paced<B> {
    body: B,
    begun: Instant,
    received: u64,
    /// When the last piece came.
    last: Instant,
    /// Made when something is waited for.
    wake: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B) -> Self {
        let now = Instant::now();
        Self { body, begun: now, received: 0, last: now, wake: None }
    }

    fn too_slow(&self) -> Status {
        Status::deadline_exceeded(match self.last + PIECE_TIME <= Instant::now() {
            true => format!("nothing of the request came for {} s", PIECE_TIME.as_secs()),
            false => format!("the request came at less than {SLOWEST} bytes a second"),
        })
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let broken = |error| Status::cancelled(format!("the request broke off: {error}"));
            let frame = frame.map(|frame| frame.map_err(broken));
            if let Some(Ok(frame)) = &frame {
                // Frames without any data, which cost the sender nothing, are no piece of it.
                if let Some(data) = frame.data_ref().filter(|data| data.has_remaining()) {
                    this.received += data.len() as u64;
                    this.last = Instant::now();
                }
            }
            return Poll::Ready(frame);
        }
        let until = (this.begun + time_for(this.received)).min(this.last + PIECE_TIME);
        let wake = this.wake.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if wake.deadline() != until {
            wake.as_mut().reset(until);
        }
        ready!(wake.as_mut().poll(context));
        Poll::Ready(Some(Err(this.too_slow())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::message::read_one;
    use std::convert::Infallible;
    use std::time::Duration;
    use tokio::time::Interval;
    use tonic::Code;

    /// The prefix of a message of this length, then pieces of a size that come at intervals, without end.
    struct Dripping(Option<u32>, usize, Interval);

    impl Dripping {
        fn new(announced: u32, size: usize, seconds: u64) -> Paced<Self> {
            let interval = tokio::time::interval(Duration::from_secs(seconds));
            Paced::new(Self(Some(announced), size, interval))
        }
    }

    impl Body for Dripping {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let data = match self.0.take() {
                Some(length) => [&[0][..], &length.to_be_bytes()].concat(),
                None => {
                    ready!(self.2.poll_tick(context));
                    vec![0; self.1]
                }
            };
            Poll::Ready(Some(Ok(Frame::data(data.into()))))
        }
    }

    const LIMIT: usize = 64 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_drips_or_stops_is_given_up() {
        for (size, seconds, says) in [
            (1, 10, "the request came at less than 1024 bytes a second"),
            (0, 10, "nothing of the request came for 75 s"),
            (1 << 20, 1000, "nothing of the request came for 75 s"),
        ] {
            let begun = Instant::now();
            let status = read_one(Dripping::new(32 << 20, size, seconds), LIMIT).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, says));
            assert!(begun.elapsed() < Duration::from_secs(200), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_message_is_read_and_an_end_that_does_not_come_is_given_up() {
        let begun = Instant::now();
        // 2 KiB a second, for more than eight minutes; what comes behind the message is refused.
        let status = read_one(Dripping::new(1 << 20, 20 << 10, 10), LIMIT).await.unwrap_err();
        assert_eq!(status.message(), "more than one message in a call that takes one");
        assert!(begun.elapsed() > Duration::from_secs(500), "{:?}", begun.elapsed());
        // The message is whole, and nobody says that it was the last one.
        let status = read_one(Dripping::new(0, 0, 10), LIMIT).await.unwrap_err();
        assert_eq!(status.message(), "nothing of the request came for 75 s");
    }
}
