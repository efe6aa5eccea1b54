//! The body of an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tonic::Status;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

pub(crate) enum Reply {
    /// Made by tonic.
    Tonic(tonic::body::Body),
    /// A framed message in pieces, then the status OK.
    Message(std::vec::IntoIter<Bytes>),
    /// Everything is sent.
    Done,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match &mut *self {
            Self::Tonic(body) => return Pin::new(body).poll_frame(context),
            Self::Done => return Poll::Ready(None),
            Self::Message(pieces) => match pieces.next() {
                Some(piece) => Frame::data(piece),
                None => {
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(GRPC_STATUS.clone(), HeaderValue::from_static("0"));
                    *self = Self::Done;
                    Frame::trailers(trailers)
                }
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tonic(body) => body.is_end_stream(),
            Self::Message(_) => false,
            Self::Done => true,
        }
    }
}
