//! Messages of gRPC without a copy where that pays: `0 | length (4 bytes, big endian) | message`.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::Status;
use trireme_protocol::proto::ModelInferResponse;

/// The flag and the length.
const PREFIX: usize = 5;
/// What is reserved for a message whose length is announced, before more of it has arrived: the most for a body over
/// HTTP by default and what may stand beside such a tensor. Pages that nothing is written to cost nothing, and a buffer
/// that grows is copied and held twice.
const FIRST_RESERVE: usize = 65 << 20;
/// Tensors up to this many bytes together are copied behind the message: one buffer is cheaper to send than two.
const COPY_UP_TO: usize = 16 << 10;
/// The number of the field `raw_output_contents`, the last one of its message.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// Reads the one message of a call. A message that arrives in one piece is not copied.
///
/// # Errors
/// Over `limit` bytes, compressed, cut short, or followed by another; what the body says.
pub(crate) async fn read_one<B>(body: B, limit: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    let mut body = body;
    let mut pieces = Pieces { whole: Bytes::new(), joined: BytesMut::new() };
    let mut wanted = PREFIX;
    while pieces.len() < wanted {
        let Some(data) = next(&mut body).await? else {
            return Err(Status::internal("the request ended before its message did"));
        };
        pieces.push(data, wanted);
        if wanted == PREFIX && pieces.len() >= PREFIX {
            wanted = PREFIX + announced(pieces.as_slice(), limit)?;
        }
    }
    let mut message = pieces.into_bytes();
    let more = message.len() > wanted || !body.is_end_stream() && next(&mut body).await?.is_some();
    if more {
        return Err(Status::internal("more than one message in a call that takes one"));
    }
    message.advance(PREFIX);
    Ok(message)
}

/// The length of the message.
fn announced(prefix: &[u8], limit: usize) -> Result<usize, Status> {
    let [flag, a, b, c, d, ..] = *prefix else { return Ok(0) };
    if flag != 0 {
        return Err(Status::internal("a compressed message, but no grpc-encoding header"));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err(Status::resource_exhausted(format!(
            "message of {length} bytes exceeds the maximum allowed value of {limit} bytes"
        )));
    }
    Ok(length)
}

/// What has arrived: the first piece as it is, or several joined.
struct Pieces {
    whole: Bytes,
    joined: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn as_slice(&self) -> &[u8] {
        if self.whole.is_empty() { &self.joined } else { &self.whole }
    }

    fn push(&mut self, data: Bytes, wanted: usize) {
        if self.whole.is_empty() && self.joined.is_empty() {
            self.whole = data;
            return;
        }
        // A copy: tensors are contiguous, and HTTP/2 brings a long message in frames. Above the first
        // reserve, memory follows what has arrived, not what was announced.
        let have = self.len() + data.len();
        let room = wanted.min(have.saturating_mul(2).max(FIRST_RESERVE)).max(have);
        if self.joined.is_empty() {
            self.joined.reserve(room);
            self.joined.extend_from_slice(&std::mem::take(&mut self.whole));
        } else if self.joined.capacity() < have {
            self.joined.reserve(room - self.joined.len());
        }
        self.joined.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.whole.is_empty() { self.joined.freeze() } else { self.whole }
    }
}

async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        if let Some(data) = frame?.into_data().ok().filter(|data| !data.is_empty()) {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The framed message in pieces; large tensors are sent from where they are.
///
/// # Errors
/// A message that is too long for its length field.
pub(crate) fn write_answer(mut message: ModelInferResponse) -> Result<Vec<Bytes>, Status> {
    let tensors = std::mem::take(&mut message.raw_output_contents);
    let head = message.encoded_len();
    let field = |tensor: &Bytes| 1 + encoded_len_varint(tensor.len() as u64);
    let fields: usize = tensors.iter().map(field).sum();
    let tail: usize = tensors.iter().map(Bytes::len).sum();
    let length = u32::try_from(head + fields + tail)
        .map_err(|_| Status::resource_exhausted("the answer is longer than a message can be"))?;
    let copy = tail <= COPY_UP_TO;
    let mut out = BytesMut::with_capacity(PREFIX + head + fields + if copy { tail } else { 0 });
    out.put_u8(0);
    out.put_u32(length);
    message.encode_raw(&mut out);
    let mut pieces = Vec::with_capacity(1 + 2 * tensors.len());
    for tensor in tensors {
        encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut out);
        encode_varint(tensor.len() as u64, &mut out);
        if copy {
            out.extend_from_slice(&tensor);
        } else {
            pieces.push(out.split().freeze());
            pieces.push(tensor);
        }
    }
    pieces.push(out.freeze());
    pieces.retain(|piece| !piece.is_empty());
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body::Frame;
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    struct Given(VecDeque<Bytes>);

    impl Body for Given {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn read(bytes: &[u8], cut: usize, limit: usize) -> Result<Bytes, Status> {
        let body = Given(bytes.chunks(cut).map(Bytes::copy_from_slice).collect());
        let mut reading = std::pin::pin!(read_one(body, limit));
        match std::future::Future::poll(reading.as_mut(), &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => panic!("the given body is always ready"),
        }
    }

    #[test]
    fn refusals() {
        let message = |bytes: &[u8]| read(bytes, 64, 4).unwrap_err().message().to_owned();
        assert_eq!(
            message(&[0, 0, 0, 0, 5]),
            "message of 5 bytes exceeds the maximum allowed value of 4 bytes"
        );
        assert_eq!(message(&[1, 0, 0, 0, 1, 9]), "a compressed message, but no grpc-encoding header");
        assert_eq!(message(&[0, 0, 0, 0, 2, 9]), "the request ended before its message did");
        assert_eq!(message(&[]), "the request ended before its message did");
        assert_eq!(message(&[0, 0, 0, 0, 1, 9, 9]), "more than one message in a call that takes one");
        assert_eq!(read(&[0, 0, 0, 0, 0], 5, 4).unwrap(), Bytes::new());
    }

    #[test]
    fn an_announced_length_reserves_no_more_than_has_arrived_warrants() {
        let mut pieces = Pieces { whole: Bytes::new(), joined: BytesMut::new() };
        pieces.push(Bytes::from_static(b"abc"), usize::MAX);
        pieces.push(Bytes::from_static(b"def"), i32::MAX as usize);
        assert!(pieces.joined.capacity() < 2 * FIRST_RESERVE);
        assert_eq!(pieces.into_bytes(), "abcdef");
    }

    proptest::proptest! {
        #[test]
        fn a_message_comes_back_however_it_is_cut(
            content in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            cut in 1usize..320,
        ) {
            let mut framed = vec![0];
            framed.extend_from_slice(&(content.len() as u32).to_be_bytes());
            framed.extend_from_slice(&content);
            proptest::prop_assert_eq!(read(&framed, cut, 300).unwrap(), content);
        }

        #[test]
        fn pieces_are_the_message_that_prost_writes(sizes in proptest::collection::vec(0usize..30_000, 0..4)) {
            let message = ModelInferResponse {
                model_name: "m".into(),
                id: "7".into(),
                raw_output_contents: sizes.iter().map(|size| Bytes::from(vec![3; *size])).collect(),
                ..Default::default()
            };
            let whole = message.encode_to_vec();
            let pieces = write_answer(message).unwrap().concat();
            proptest::prop_assert_eq!(&pieces[PREFIX..], &whole[..]);
            proptest::prop_assert_eq!(pieces[0], 0);
            proptest::prop_assert_eq!(&pieces[1..PREFIX], (whole.len() as u32).to_be_bytes());
        }
    }
}
