//! Server-sent events of OpenAI's API: `data: {object}` and an empty line each, `data: [DONE]` at the end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep};
use trireme_runtime::{ResponseStream, StreamItem};

use super::error::error_object;
use crate::answer::Failure;

/// Answers that are there together leave together, up to about this many bytes.
const CHUNK: usize = 16 << 10;
/// After so long without an answer a comment says that the connection lives: proxies cut silent ones.
const SILENCE: Duration = Duration::from_secs(10);
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The events of one call. Dropped before its end, it cancels the call.
pub(crate) struct Documents {
    stream: Option<ResponseStream>,
    ready: BytesMut,
    silence: Pin<Box<Sleep>>,
}

impl Documents {
    /// Begins with the answer that decided the status, if one did.
    pub(crate) fn begin(first: Option<StreamItem>, stream: ResponseStream) -> Self {
        let silence = Box::pin(sleep(if first.is_some() { SILENCE } else { Duration::ZERO }));
        let mut events = Self { stream: Some(stream), ready: BytesMut::new(), silence };
        if let Some(first) = first {
            events.take(Some(Ok(first)));
        }
        events
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stream.is_none() && self.ready.is_empty()
    }

    fn take(&mut self, item: Option<Result<StreamItem, trireme_runtime::ServeError>>) {
        let last = !matches!(&item, Some(Ok(item)) if !item.is_final);
        match item {
            Some(Ok(StreamItem { document: Some(document), .. })) => {
                write_event(&mut self.ready, &document.body);
            }
            Some(Err(error)) => write_event(&mut self.ready, &error_object(&Failure::from(error))),
            Some(Ok(_)) | None => {}
        }
        if last {
            self.ready.put_slice(b"data: [DONE]\n\n");
            self.stream = None;
        }
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.ready.len() < CHUNK {
            let Some(stream) = &mut self.stream else { break };
            // The future holds nothing between two polls: the stream itself keeps the waker.
            let Poll::Ready(item) = pin!(stream.next()).poll(context) else { break };
            self.take(item);
        }
        if self.ready.is_empty() && self.stream.is_some() {
            if self.silence.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.ready.put_slice(COMMENT);
        }
        if self.ready.is_empty() {
            return Poll::Ready(None);
        }
        self.silence.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(self.ready.split().freeze()))
    }
}

/// An object may be written over several lines; each is a line of the event.
fn write_event(out: &mut BytesMut, object: &str) {
    out.reserve(object.len() + 16);
    for line in object.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        out.put_slice(b"data: ");
        out.put_slice(line.as_bytes());
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_several_lines_is_one_event() {
        let mut out = BytesMut::new();
        write_event(&mut out, "{\"a\":\r\n 1}");
        assert_eq!(out, "data: {\"a\":\ndata:  1}\n\n");
    }
}
