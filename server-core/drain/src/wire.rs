use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::debts::{Debt, Debts};
use crate::late::{ENOUGH, Late};

/// The stream of a connection. It owes what could not be written at once; and when the server ends it does not close
/// before its client has: a socket that is closed on data it has not read resets the connection, and what was on its way
/// to the client is lost. Of what it reads it leaves out the frames that [`Late`] tells of.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    debts: Debts,
    stuck: Option<Debt>,
    late: Late,
    /// What [`Late`] has handed on and a small buffer had no room for.
    over: Vec<u8>,
}

impl<S> Wire<S> {
    /// The same stream, with what it owes.
    pub fn new(stream: S, debts: &Debts) -> Self {
        Self { stream, debts: debts.clone(), stuck: None, late: Late::new(), over: Vec::new() }
    }

    fn note<T>(&mut self, outcome: &Poll<io::Result<T>>) {
        match outcome {
            Poll::Pending if self.stuck.is_none() => self.stuck = Some(self.debts.open()),
            Poll::Ready(Err(_)) => self.stuck = None,
            _ => {}
        }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads what [`Late`] hands on; the buffer has room for more than it holds back.
    fn poll_late(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let (before, held) = (buffer.filled().len(), self.late.held().len());
            buffer.put_slice(self.late.held());
            match Pin::new(&mut self.stream).poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => {
                    buffer.set_filled(before);
                    return other;
                }
            }
            if buffer.filled().len() == before + held {
                // The end, behind what was held back.
                self.late.end();
                return Poll::Ready(Ok(()));
            }
            let kept = self.late.keep(&mut buffer.filled_mut()[before..]);
            buffer.set_filled(before + kept);
            // Nothing would be taken for the end.
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.over.is_empty() {
            if this.late.is_idle() || buffer.remaining() == 0 {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            if buffer.remaining() >= ENOUGH {
                return this.poll_late(context, buffer);
            }
            // The rest of a buffer that the last read has filled but for what was held back.
            let mut few = [0; ENOUGH];
            let mut few = ReadBuf::new(&mut few);
            ready!(this.poll_late(context, &mut few))?;
            this.over.extend_from_slice(few.filled());
        }
        let count = this.over.len().min(buffer.remaining());
        buffer.put_slice(&this.over[..count]);
        this.over.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.note(&flushed);
        if flushed.is_ready() {
            self.stuck = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        self.stuck = None;
        if !self.debts.is_ending() {
            return Poll::Ready(Ok(()));
        }
        let mut discarded = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_owed_until_it_is_flushed() {
        let debts = Debts::default();
        let (mut client, server) = tokio::io::duplex(4);
        let mut server = Wire::new(server, &debts);
        server.write_all(b"1234").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(debts.count(), 0);
        assert!(timeout(LONG, server.write_all(b"5")).await.is_err());
        assert_eq!(debts.count(), 1);
        client.read_exact(&mut [0; 4]).await.unwrap();
        server.write_all(b"5").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(debts.count(), 0);
    }

    /// All that a server reads of what a client sent before it closed, so much at a time.
    async fn read_in_buffers_of(size: usize, sent: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut server = Wire::new(server, &Debts::default());
        client.write_all(sent).await.unwrap();
        drop(client);
        let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
        loop {
            match timeout(LONG, server.read(&mut buffer)).await.unwrap().unwrap() {
                0 => return read,
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_whole_in_buffers_of_any_size() {
        for size in 1..40 {
            // The preface of HTTP/2, settings without any, and the beginning of a frame that never ends.
            let sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06";
            assert_eq!(read_in_buffers_of(size, sent).await, sent, "{size} at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_frames_are_left_out_of_buffers_of_any_size() {
        let (sent, handed) = crate::late::tests::conversation();
        for size in 1..sent.len() {
            assert_eq!(read_in_buffers_of(size, &sent).await, handed, "{size} at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_the_client_closes_first() {
        let debts = Debts::default();
        debts.begin_end();
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Wire::new(server, &debts);
        client.write_all(b"still speaking").await.unwrap();
        assert!(timeout(LONG, server.shutdown()).await.is_err());
        assert_eq!(client.read(&mut [0; 4]).await.unwrap(), 0, "the client sees the end");
        assert_eq!(debts.count(), 0);
        drop(client);
        timeout(LONG, server.shutdown()).await.unwrap().unwrap();
    }
}
