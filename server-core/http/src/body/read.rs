//! Reads a whole body under limits that hold while it arrives.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::Instant;
use trireme_protocol::{Limits, PIECE_TIME, SLOWEST, time_for};

use crate::answer::Failure;

/// A body that is refused is still read this far and this long beside its answer, so that its sender gets to see it: a
/// connection closed on unread data is reset. Nothing of it is kept.
const DRAIN_BYTES: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The word of a refusal for its size.
pub(crate) const TOO_LARGE: &str = "request_too_large";

/// The whole body. One that arrives in one piece is not copied.
///
/// # Errors
/// 400 for more bytes or more chunks than the limits allow, or for a body that ends too early.
pub(crate) async fn read<B>(body: B, limits: &Limits, waits: bool) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut body = body;
    match collect(&mut body, limits).await {
        Err(Refusal::Broken(message)) => Err(Failure::invalid(message)),
        Err(Refusal::Limit(failure)) => {
            discard(body, waits);
            Err(failure)
        }
        Ok(whole) => Ok(whole),
    }
}

/// Reads a body that nobody wants, on a task of its own: the answer does not wait for it.
pub(crate) fn discard<B>(body: B, waits: bool)
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    // A client that waits for "100 Continue" has not sent the body.
    if !waits && !body.is_end_stream() {
        tokio::spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
    }
}

enum Refusal {
    Limit(Failure),
    Broken(String),
}

async fn collect<B>(body: &mut B, limits: &Limits) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let check = |length| {
        limits.check_body(length).map_err(|error| Refusal::Limit(Failure::from(error).coded(TOO_LARGE)))
    };
    check(announced.unwrap_or(0))?;
    let Some(first) = next(body).await? else { return Ok(Bytes::new()) };
    check(first.len())?;
    if body.is_end_stream() {
        return Ok(first);
    }
    // An HTTP/2 client may say that the body ends in a frame of its own. To answer before it would reset the stream.
    let Some(second) = next(body).await? else { return Ok(first) };
    check(first.len() + second.len())?;
    // A copy: tensors are contiguous, and a long body arrives in pieces. The announced length is within the limit,
    // and pages that nothing is written to cost nothing.
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(first.len() * 2));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    drop((first, second));
    let mut chunks = 2;
    let begun = Instant::now();
    loop {
        let pace = begun + time_for(whole.len() as u64);
        let Ok(data) = tokio::time::timeout_at(pace, next(body)).await else {
            let text = format!("the request body came at less than {SLOWEST} bytes a second");
            return Err(Refusal::Broken(text));
        };
        let Some(data) = data? else { break };
        chunks += 1;
        check(whole.len() + data.len())?;
        if announced.is_none() && chunks > limits.max_chunks {
            let most = limits.max_chunks;
            let text = format!("request body of more than {most} chunks: send it in larger ones");
            return Err(Refusal::Limit(Failure::invalid(text)));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The next piece that is not empty; trailers are passed over.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let Ok(frame) = tokio::time::timeout(PIECE_TIME, frame).await else {
            let text = format!("nothing of the request body came for {} s", PIECE_TIME.as_secs());
            return Err(Refusal::Broken(text));
        };
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Refusal::Broken(format!("failed to read the request body: {error}")));
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn drain<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut dropped = 0;
    while let Ok(Some(data)) = next(&mut body).await {
        dropped += data.len();
        if dropped > DRAIN_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body::Frame;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    /// A body in the given pieces that says its length or does not.
    struct Given(std::collections::VecDeque<Bytes>, bool);

    impl Body for Given {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
        fn size_hint(&self) -> http_body::SizeHint {
            if self.1 {
                http_body::SizeHint::with_exact(self.0.iter().map(|data| data.len() as u64).sum())
            } else {
                http_body::SizeHint::default()
            }
        }
    }

    fn run(pieces: &[&'static [u8]], says: bool, limits: &Limits) -> Result<Bytes, String> {
        let body = Given(pieces.iter().map(|piece| Bytes::from_static(piece)).collect(), says);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(read(body, limits, false)).map_err(|failure| failure.message)
    }

    #[test]
    fn pieces_become_one() {
        let limits = Limits { max_body: 6, max_chunks: 3, ..Limits::default() };
        for says in [true, false] {
            assert_eq!(run(&[], says, &limits).unwrap(), "");
            assert_eq!(run(&[b"abc"], says, &limits).unwrap(), "abc");
            assert_eq!(run(&[b"abc", b"", b"de", b"f"], says, &limits).unwrap(), "abcdef");
        }
    }

    #[test]
    fn a_piece_that_is_the_whole_body_is_not_copied() {
        let piece: &'static [u8] = b"abc";
        assert_eq!(run(&[piece], true, &Limits::default()).unwrap().as_ptr(), piece.as_ptr());
    }

    /// HTTP/2 clients send the end in an empty frame of its own; an answer before it makes them lose the request.
    #[test]
    fn the_end_is_waited_for() {
        let mut body = Given([Bytes::from_static(b"abc"), Bytes::new()].into(), true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = runtime.block_on(collect(&mut body, &Limits::default()));
        assert!(matches!(read, Ok(data) if data == "abc"));
        assert!(body.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        struct Silent;
        impl Body for Silent {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Pending
            }
        }
        let failure = read(Silent, &Limits::default(), false).await.unwrap_err();
        assert_eq!(failure.message, "nothing of the request body came for 75 s");
    }

    /// Pieces of a size that come at intervals, without end.
    struct Dripping(usize, tokio::time::Interval);

    impl Dripping {
        fn new(size: usize, seconds: u64) -> Self {
            Self(size, tokio::time::interval(Duration::from_secs(seconds)))
        }
    }

    impl Body for Dripping {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let size = self.0;
            self.1.poll_tick(context).map(|_| Some(Ok(Frame::data(Bytes::from(vec![0; size])))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up_and_one_that_is_slow_is_not() {
        let begun = Instant::now();
        let failure = read(Dripping::new(1, 10), &Limits::default(), false).await.unwrap_err();
        assert_eq!(failure.message, "the request body came at less than 1024 bytes a second");
        assert!(begun.elapsed() < Duration::from_secs(90));
        let limits = Limits { max_body: 1 << 20, ..Limits::default() };
        let failure = read(Dripping::new(20 << 10, 10), &limits, true).await.unwrap_err();
        assert!(failure.message.contains("exceeds the maximum"), "{}", failure.message);
        assert!(begun.elapsed() > Duration::from_secs(500));
    }

    /// The sender may be slow, and need not wait for what is known already.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_wait_for_the_rest() {
        let begun = Instant::now();
        let limits = Limits { max_body: 10, ..Limits::default() };
        let failure = read(Dripping::new(100, 5), &limits, false).await.unwrap_err();
        assert!(failure.message.contains("exceeds the maximum"), "{}", failure.message);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn limits_hold_while_the_body_arrives() {
        let limits = Limits { max_body: 6, max_chunks: 2, ..Limits::default() };
        let over = "request body of 7 bytes exceeds the maximum allowed value of 6 bytes";
        assert_eq!(run(&[b"abcd", b"efg", b"more"], false, &limits).unwrap_err(), over);
        assert_eq!(run(&[b"abcdefg"], true, &limits).unwrap_err(), over);
        let many = run(&[b"a", b"b", b"c"], false, &limits).unwrap_err();
        assert_eq!(many, "request body of more than 2 chunks: send it in larger ones");
        assert!(run(&[b"a", b"b", b"c"], true, &limits).is_ok());
    }
}
