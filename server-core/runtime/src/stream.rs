use std::future::poll_fn;
use std::sync::Arc;

use trireme_protocol::InferResponse;

use crate::error::ServeError;
use crate::journey::{Journey, StreamItem};

/// The answers of one request, in order. Dropped before its end, it cancels the request.
pub struct ResponseStream {
    journey: Arc<Journey>,
    ended: bool,
}

impl ResponseStream {
    pub(crate) fn new(journey: Arc<Journey>) -> Self {
        Self { journey, ended: false }
    }

    /// The next answer; `None` after the final one.
    ///
    /// # Errors
    /// What the backend, the scheduler or the life cycle says; an error is always the last item.
    pub async fn next(&mut self) -> Option<Result<StreamItem, ServeError>> {
        if self.ended {
            return None;
        }
        self.journey.look_out().await;
        let letter = poll_fn(|context| self.journey.poll_next(context)).await;
        self.ended = !matches!(&letter, Ok(item) if !item.is_final);
        Some(letter)
    }

    /// The one answer of a request to a model that is not decoupled.
    ///
    /// # Errors
    /// As [`Self::next`]; INTERNAL if there is none.
    pub(crate) async fn only(mut self) -> Result<InferResponse, ServeError> {
        let item = self.next().await.unwrap_or_else(|| Err(ServeError::internal("no answer")))?;
        item.response.ok_or_else(|| ServeError::internal("expected a single response, got 0"))
    }

    /// Whether the client asked for a message that says no more than that the stream has ended.
    pub fn wants_empty_final(&self) -> bool {
        self.journey.wants_empty_final()
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        if !self.ended {
            self.journey.cancel();
        }
    }
}
