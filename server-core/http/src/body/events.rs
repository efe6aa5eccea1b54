//! Server-sent events: every answer of a model is `data: {json}` and an empty line.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use trireme_protocol::error_json;
use trireme_protocol::generate::encode_generate;
use trireme_runtime::{ResponseStream, ServeError, StreamItem};

use crate::answer::Failure;

/// Answers that are there together leave together, up to about this many bytes.
const CHUNK: usize = 16 << 10;

/// The events of one request. Dropped before its end, it cancels the request.
pub(crate) struct Events {
    stream: Option<ResponseStream>,
    ready: BytesMut,
}

impl Events {
    /// Begins with the answer that decided the status.
    ///
    /// # Errors
    /// The first answer is an error, or cannot be written as JSON.
    pub(crate) fn begin(
        first: Option<Result<StreamItem, ServeError>>,
        stream: ResponseStream,
    ) -> Result<Self, Failure> {
        let mut ready = BytesMut::new();
        let more = match first {
            None => false,
            Some(item) => {
                let item = item?;
                let last = item.is_final;
                write_item(&mut ready, item)?;
                !last
            }
        };
        Ok(Self { stream: more.then_some(stream), ready })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stream.is_none() && self.ready.is_empty()
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.ready.len() < CHUNK {
            let Some(stream) = &mut self.stream else { break };
            // The future holds nothing between two polls: the stream itself keeps the waker.
            let Poll::Ready(item) = pin!(stream.next()).poll(context) else { break };
            let last = !matches!(&item, Some(Ok(item)) if !item.is_final);
            let written = match item {
                None => Ok(()),
                Some(Ok(item)) => write_item(&mut self.ready, item),
                Some(Err(error)) => Err(error.into()),
            };
            if let Err(failure) = &written {
                write_event(&mut self.ready, error_json(&failure.message).as_bytes());
            }
            if last || written.is_err() {
                self.stream = None;
            }
        }
        if !self.ready.is_empty() {
            return Poll::Ready(Some(self.ready.split().freeze()));
        }
        if self.stream.is_none() { Poll::Ready(None) } else { Poll::Pending }
    }
}

fn write_item(out: &mut BytesMut, item: StreamItem) -> Result<(), Failure> {
    if let Some(response) = item.response {
        write_event(out, &encode_generate(&response)?);
    }
    Ok(())
}

fn write_event(out: &mut BytesMut, json: &[u8]) {
    out.reserve(json.len() + 8);
    out.put_slice(b"data: ");
    out.put_slice(json);
    out.put_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_protocol::InferResponse;

    #[test]
    fn an_answer_is_one_event_and_an_end_without_one_is_none() {
        let mut out = BytesMut::new();
        let response = InferResponse { model_name: "m".into(), model_version: 1, ..Default::default() };
        let item = |response| StreamItem { response, document: None, is_final: true };
        assert!(write_item(&mut out, item(Some(response))).is_ok());
        assert!(write_item(&mut out, item(None)).is_ok());
        write_event(&mut out, error_json("a\nb").as_bytes());
        assert_eq!(
            out,
            "data: {\"model_name\":\"m\",\"model_version\":\"1\"}\n\ndata: {\"error\":\"a\\nb\"}\n\n"
        );
    }
}
