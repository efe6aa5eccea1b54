//! prost with a bound: a message of many empty fields is small on the wire and large in memory, so the fields are
//! counted before anything is allocated for them.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::error::{ProtocolError, Result};
use crate::proto::ModelInferRequest;

/// Fields of a message, each element of a list counted: more than the inputs, outputs, contents and parameters that
/// [`crate::Limits`] allows.
const MAX_FIELDS: usize = 16_384;

/// What the contents of a request's inputs may take in memory once they are numbers and texts.
const MAX_EXPANDED: usize = 256 << 20;
/// Bytes in memory of a number, a text and a parameter, at most.
const NUMBER: usize = 8;
const TEXT: usize = 32;
const ENTRY: usize = 160;

/// Decodes a message that came from the wire. `bytes` fields stay slices of it.
///
/// # Errors
/// `InvalidArg` for a message of too many fields, `Internal` for one that cannot be read.
pub fn decode_message<T: Message + Default + 'static>(wire: Bytes) -> Result<T> {
    let unreadable =
        |error: prost::DecodeError| ProtocolError::internal(format!("the message cannot be read: {error}"));
    let has_inputs = TypeId::of::<T>() == TypeId::of::<ModelInferRequest>();
    let (mut rest, mut inputs) = (&wire[..], 0usize);
    for count in 1.. {
        if rest.is_empty() {
            break;
        }
        if count > MAX_FIELDS {
            return Err(ProtocolError::invalid(format!(
                "the message has more than {MAX_FIELDS} fields and elements of lists"
            )));
        }
        let (tag, payload) = next_field(&mut rest).map_err(unreadable)?;
        if let (true, inputs::INPUTS, Some(input)) = (has_inputs, tag, payload) {
            inputs = inputs.saturating_add(expanded(input));
        }
    }
    if inputs > MAX_EXPANDED {
        return Err(ProtocolError::invalid(format!(
            "the contents of the request's inputs would take {inputs} bytes, at most {MAX_EXPANDED} are allowed: send \
             them as raw_input_contents"
        )));
    }
    T::decode(wire).map_err(unreadable)
}

/// What shape and contents of an input of a `ModelInferRequest` take in memory.
fn expanded(input: &[u8]) -> usize {
    // Lists that are not packed cost a tag for each element, packed ones a byte.
    let mut bytes = 0usize;
    each_field(input, &mut |tag, payload| match (tag, payload) {
        (inputs::SHAPE, Some(shape)) => bytes += numbers(shape) * NUMBER,
        (inputs::PARAMETERS, _) => bytes += ENTRY,
        (inputs::CONTENTS, Some(contents)) => each_field(contents, &mut |tag, payload| {
            bytes += match (tag, payload) {
                (inputs::FLOATS | inputs::DOUBLES, Some(packed)) => packed.len(),
                (inputs::TEXTS, Some(text)) => text.len() + TEXT,
                (_, Some(packed)) => numbers(packed) * NUMBER,
                (_, None) => NUMBER,
            };
        }),
        _ => bytes += NUMBER,
    });
    bytes
}

/// How many varints there are: each ends with a byte below 128.
fn numbers(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

/// The fields of a message. Stops where the message cannot be read.
fn each_field<'a>(mut rest: &'a [u8], see: &mut dyn FnMut(u32, Option<&'a [u8]>)) {
    while !rest.is_empty() {
        let Ok((tag, payload)) = next_field(&mut rest) else { return };
        see(tag, payload);
    }
}

/// The next field: its number, and its bytes if it has a length.
fn next_field<'a>(rest: &mut &'a [u8]) -> std::result::Result<(u32, Option<&'a [u8]>), prost::DecodeError> {
    let (tag, wire_type) = decode_key(rest)?;
    let field = *rest;
    skip_field(wire_type, tag, rest, DecodeContext::default())?;
    if wire_type != WireType::LengthDelimited {
        return Ok((tag, None));
    }
    let mut payload = &field[..field.len() - rest.len()];
    decode_varint(&mut payload)?;
    Ok((tag, Some(payload)))
}

/// Field numbers of a request, of its inputs and of their contents.
mod inputs {
    pub(super) const INPUTS: u32 = 5;
    pub(super) const SHAPE: u32 = 3;
    pub(super) const PARAMETERS: u32 = 4;
    pub(super) const CONTENTS: u32 = 5;
    pub(super) const FLOATS: u32 = 6;
    pub(super) const DOUBLES: u32 = 7;
    pub(super) const TEXTS: u32 = 8;
}

/// The codec of all services.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// See [`decode_message`].
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, wire: &mut DecodeBuf<'_>) -> std::result::Result<Option<U>, Status> {
        let wire = wire.copy_to_bytes(wire.remaining());
        match decode_message(wire) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.status == crate::StatusCode::InvalidArg => {
                Err(Status::invalid_argument(error.message))
            }
            Err(error) => Err(Status::internal(error.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proto::model_infer_request::InferInputTensor;

    #[test]
    fn a_message_of_many_empty_fields_is_refused_before_it_is_built() {
        // Two bytes each on the wire, more than a hundred times that in memory.
        let wire = Bytes::from([0x2a, 0].repeat(10_000_000));
        let error = decode_message::<ModelInferRequest>(wire).unwrap_err();
        assert!(error.message.contains("more than 16384 fields"), "{}", error.message);
    }

    #[test]
    fn an_input_of_many_empty_texts_is_refused_before_it_is_built() {
        let texts = [0x42, 0].repeat(20_000_000);
        let field = |tag: u8, payload: &[u8]| {
            let mut wire = vec![tag << 3 | 2];
            prost::encoding::encode_varint(payload.len() as u64, &mut wire);
            [&wire[..], payload].concat()
        };
        let wire = Bytes::from(field(5, &field(5, &texts)));
        let error = decode_message::<ModelInferRequest>(wire).unwrap_err();
        assert!(error.message.contains("would take 640000000 bytes"), "{}", error.message);
    }

    #[test]
    fn what_is_within_the_bound_is_read() {
        let inputs = vec![InferInputTensor::default(); 4096];
        let raw_input_contents = vec![Bytes::from_static(b"x"); 4096];
        let message = ModelInferRequest { inputs, raw_input_contents, ..Default::default() };
        let wire = Bytes::from(message.encode_to_vec());
        assert_eq!(decode_message::<ModelInferRequest>(wire.clone()).unwrap(), message);
        assert!(decode_message::<ModelInferRequest>(wire.slice(..wire.len() - 1)).is_err());
        assert_eq!(decode_message::<ModelInferRequest>(Bytes::new()).unwrap(), ModelInferRequest::default());
    }
}
