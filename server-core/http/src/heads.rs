//! The heads of requests as they were sent, kept beside hyper while headers are forwarded to models.
//!
//! A blank at the end of a value is no part of it (RFC 9110, 5.5), and hyper takes it away. Upstream hands it on, and some
//! of its clients want it back. What hyper reads is not changed; a head that is not to be had whole, since it is too long
//! or came before the last answer was written, leaves the values as hyper has them.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Version};
use regex::Regex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a request is kept until its head is known.
const MOST: usize = 64 << 10;

/// What has come of a connection's next request; shared by its stream and its service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads(Arc<Mutex<Coming>>);

#[derive(Debug)]
enum Coming {
    /// What was read since the last answer.
    Head(Vec<u8>),
    /// The head was taken; what comes now is the body.
    Body,
    /// HTTP/2, whose heads are not text.
    Frames,
}

impl Default for Coming {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Heads {
    fn state(&self) -> MutexGuard<'_, Coming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, data: &[u8]) {
        let mut state = self.state();
        if let Coming::Head(kept) = &mut *state {
            kept.extend_from_slice(&data[..data.len().min(MOST - kept.len())]);
            if kept.starts_with(b"PRI * HTTP/2.0\r\n") {
                *state = Coming::Frames;
            }
        }
    }

    fn wrote(&self) {
        let mut state = self.state();
        match &mut *state {
            Coming::Head(kept) => kept.clear(),
            Coming::Body => *state = Coming::default(),
            Coming::Frames => {}
        }
    }

    /// The head of the request that hyper has just read, if it is whole.
    pub(crate) fn take<B>(&self, request: &http::Request<B>) -> Option<RawHead> {
        let mut state = self.state();
        let Coming::Head(kept) = &mut *state else { return None };
        let kept = std::mem::take(kept);
        *state = Coming::Body;
        (request.version() <= Version::HTTP_11).then_some(())?;
        RawHead::of(kept, &format!("{} {} ", request.method(), request.uri()))
    }
}

/// A request's head, up to the empty line.
#[derive(Debug, Clone)]
pub(crate) struct RawHead(Arc<[u8]>);

impl RawHead {
    /// `sent` holds a head that begins as is said.
    fn of(mut sent: Vec<u8>, begins: &str) -> Option<Self> {
        let empty = |byte: &u8| matches!(byte, b'\r' | b'\n');
        sent.drain(..sent.iter().take_while(|byte| empty(byte)).count());
        if !sent.starts_with(begins.as_bytes()) {
            return None;
        }
        let mut length = 0;
        for line in sent.split_inclusive(|byte| *byte == b'\n') {
            if matches!(line, b"\r\n" | b"\n") {
                return Some(Self(sent[..length].into()));
            }
            length += line.len();
        }
        None
    }

    /// The values of each header as they were sent, in their order; blanks in front are still there.
    fn values(&self) -> HashMap<HeaderName, Vec<&[u8]>> {
        let mut values: HashMap<HeaderName, Vec<&[u8]>> = HashMap::new();
        for line in self.0.split(|byte| *byte == b'\n').skip(1) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            if let Ok(name) = HeaderName::from_bytes(&line[..colon]) {
                values.entry(name).or_default().push(&line[colon + 1..]);
            }
        }
        values
    }
}

/// A value with the blanks behind it, if what was sent is that value.
fn whole<'a>(sent: &'a [u8], trimmed: &'a [u8]) -> &'a [u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &sent[sent.iter().take_while(|byte| blank(byte)).count()..];
    match value.strip_prefix(trimmed) {
        Some(rest) if rest.iter().all(blank) => value,
        _ => trimmed,
    }
}

/// The headers whose names match, as they were sent. Names are in lower case, as HTTP/2 has them.
pub(crate) fn forwarded(head: &Parts, pattern: Option<&Regex>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(pattern) = pattern else { return Vec::new() };
    let raw = head.extensions.get::<RawHead>().map(RawHead::values).unwrap_or_default();
    let names = head.headers.keys().filter(|name| pattern.is_match(name.as_str()));
    let values = names.flat_map(|name| {
        let raw = raw.get(name);
        head.headers.get_all(name).iter().enumerate().map(move |(nth, value)| {
            let sent = raw.and_then(|raw| raw.get(nth)).map(|sent| whole(sent, value.as_bytes()));
            let sent = sent.and_then(|sent| HeaderValue::from_bytes(sent).ok());
            (name.clone(), sent.unwrap_or_else(|| value.clone()))
        })
    });
    values.collect()
}

/// A stream that keeps heads, if it is asked to.
pub(crate) struct Watched<S> {
    stream: S,
    heads: Option<Heads>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, heads: Option<Heads>) -> Self {
        Self { stream, heads }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        if let (Some(heads), Poll::Ready(Ok(_))) = (&self.heads, written) {
            heads.wrote();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(heads) = &self.heads {
            heads.read(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
