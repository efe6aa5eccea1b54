//! A socket whose writes are gathered: HTTP/2 writes frame by frame, and each write would wake the client. What a
//! connection has to say in one turn of its task leaves in one write, or in a few large ones.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Gathered bytes that are sent without waiting for the end of the turn.
const FULL: usize = 256 << 10;
/// A buffer that grew beyond this is given back once it is empty.
const KEEP: usize = 16 << 10;

/// What hyper reads from and writes to.
pub(crate) struct Socket {
    read: TokioIo<OwnedReadHalf>,
    outbox: Outbox<OwnedWriteHalf>,
}

/// The gathered writes; a copy of the payload that saves a system call and a wake-up for every frame.
pub(crate) struct Outbox<W>(Arc<Mutex<State<W>>>);

struct State<W> {
    writer: W,
    waiting: Vec<u8>,
    sent: usize,
}

impl Socket {
    /// The socket, and the outbox that its task sends at the end of each turn.
    pub(crate) fn new(stream: TcpStream) -> (Self, Outbox<OwnedWriteHalf>) {
        let (read, write) = stream.into_split();
        let outbox = Outbox::new(write);
        (Self { read: TokioIo::new(read), outbox: Outbox(Arc::clone(&outbox.0)) }, outbox)
    }
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    fn new(writer: W) -> Self {
        Self(Arc::new(Mutex::new(State { writer, waiting: Vec::new(), sent: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_send(context)
    }

    /// Takes as much as there is room for.
    fn poll_gather(&self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.waiting.len() >= FULL {
            ready!(state.poll_send(context))?;
        }
        let mut taken = 0;
        for part in parts {
            let room = FULL - state.waiting.len();
            let part = &part[..part.len().min(room)];
            state.waiting.extend_from_slice(part);
            taken += part.len();
        }
        Poll::Ready(Ok(taken))
    }
}

impl<W: AsyncWrite + Unpin> State<W> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let rest = &self.waiting[self.sent..];
            let count = ready!(Pin::new(&mut self.writer).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.sent = 0;
        self.waiting.clear();
        self.waiting.shrink_to(KEEP);
        Poll::Ready(Ok(()))
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, part: &[u8]) -> Poll<io::Result<usize>> {
        self.outbox.poll_gather(context, &[IoSlice::new(part)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outbox.poll_gather(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The end of the turn sends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.outbox.state();
        ready!(state.poll_send(context))?;
        Pin::new(&mut state.writer).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::task::Waker;

    /// Takes so many bytes, then is full.
    struct Narrow {
        room: usize,
        got: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, part: &[u8]) -> Poll<io::Result<usize>> {
            let count = part.len().min(self.room);
            if count == 0 {
                return Poll::Pending;
            }
            self.room -= count;
            self.writes += 1;
            self.got.extend_from_slice(&part[..count]);
            Poll::Ready(Ok(count))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn outbox(room: usize) -> Outbox<Narrow> {
        Outbox::new(Narrow { room, got: Vec::new(), writes: 0 })
    }

    #[test]
    fn frames_of_a_turn_leave_in_one_write() {
        let outbox = outbox(usize::MAX);
        let mut context = Context::from_waker(Waker::noop());
        for frame in [&b"ab"[..], b"", b"cde"] {
            let parts = [IoSlice::new(b"#"), IoSlice::new(frame)];
            assert!(outbox.poll_gather(&mut context, &parts).is_ready());
        }
        assert_eq!(outbox.state().writer.writes, 0);
        assert!(outbox.poll_send(&mut context).is_ready());
        assert_eq!((outbox.state().writer.writes, &outbox.state().writer.got[..]), (1, &b"#ab##cde"[..]));
    }

    #[test]
    fn a_full_socket_stops_the_writer_and_loses_nothing() {
        let outbox = outbox(5);
        let mut context = Context::from_waker(Waker::noop());
        let data: Vec<u8> = (0..FULL + 10).map(|i| i as u8).collect();
        let Poll::Ready(Ok(taken)) = outbox.poll_gather(&mut context, &[IoSlice::new(&data)]) else {
            panic!("there was room")
        };
        assert_eq!(taken, FULL);
        assert!(outbox.poll_gather(&mut context, &[IoSlice::new(&data[taken..])]).is_pending());
        outbox.state().writer.room = usize::MAX;
        assert!(matches!(
            outbox.poll_gather(&mut context, &[IoSlice::new(&data[taken..])]),
            Poll::Ready(Ok(10))
        ));
        assert!(outbox.poll_send(&mut context).is_ready());
        assert_eq!(outbox.state().writer.got, data);
        assert!(outbox.state().waiting.capacity() <= KEEP);
    }
}
