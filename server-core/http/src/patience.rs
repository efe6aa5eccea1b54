//! A connection on which nothing comes is closed: hyper's own timer begins with the first byte of a request, and not
//! before it knows which version of HTTP is spoken.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The preface of HTTP/2 has so many bytes; with as many the version is known.
const ENOUGH: usize = 24;

/// A stream whose first bytes have to come in time.
pub(crate) struct FirstBytes<S> {
    stream: S,
    left: Option<Pin<Box<Sleep>>>,
    seen: usize,
}

impl<S> FirstBytes<S> {
    pub(crate) fn within(stream: S, time: Duration) -> Self {
        Self { stream, left: Some(Box::pin(tokio::time::sleep(time))), seen: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(left) = &mut this.left else { return read };
        if read.is_ready() {
            this.seen += buffer.filled().len() - before;
            if this.seen >= ENOUGH {
                this.left = None;
            }
            return read;
        }
        match left.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        // There is something to answer, so a request has come.
        self.left = None;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.left = None;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_preface_end_in_time() {
        for sent in [&b""[..], b"PRI * HT"] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(sent).await.unwrap();
            let mut server = FirstBytes::within(server, Duration::from_secs(75));
            let mut read = [0; 64];
            if !sent.is_empty() {
                assert_eq!(server.read(&mut read).await.unwrap(), sent.len());
            }
            assert_eq!(server.read(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_spoken_may_pause() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = FirstBytes::within(server, Duration::from_secs(75));
        client.write_all(b"GET /v2/health/live HTTP/1.1\r\n").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(server.read(&mut read).await.unwrap(), 30);
        tokio::time::advance(Duration::from_secs(1000)).await;
        client.write_all(b"Host: x\r\n").await.unwrap();
        assert_eq!(server.read(&mut read).await.unwrap(), 9);
    }
}
