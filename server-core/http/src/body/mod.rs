//! Bodies: how one is read, and what is sent.

mod events;
mod read;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

pub(crate) use events::Events;
pub(crate) use read::{TOO_LARGE, discard, read};

use crate::openai::Documents;

/// The body of an answer.
pub(crate) enum Body {
    Empty,
    /// One buffer.
    Whole(Bytes),
    /// JSON and the tensors behind it, each sent from where it is.
    Pieces(std::vec::IntoIter<Bytes>),
    /// Answers of a model as they come.
    Events(Box<Events>),
    /// The same for OpenAI's API.
    Documents(Box<Documents>),
}

impl Body {
    pub(crate) fn pieces(pieces: Vec<Bytes>) -> Self {
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => Self::Whole(whole),
            Err(pieces) => Self::Pieces(pieces.into_iter()),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Empty => None,
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(std::mem::take(bytes)),
            Self::Pieces(pieces) => pieces.next(),
            Self::Events(events) => match events.poll_next(context) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            },
            Self::Documents(documents) => match documents.poll_next(context) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.as_slice().is_empty(),
            Self::Events(events) => events.is_done(),
            Self::Documents(documents) => documents.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len(),
            Self::Pieces(pieces) => pieces.as_slice().iter().map(Bytes::len).sum(),
            Self::Events(_) | Self::Documents(_) => return SizeHint::default(),
        };
        SizeHint::with_exact(length as u64)
    }
}
