//! prost with a bound: a message of many empty fields is small on the wire and large in memory, so the fields are
//! counted before anything is allocated for them.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::error::{ProtocolError, Result};

/// Fields of a message, each element of a list counted: more than the inputs, outputs, contents and parameters that
/// [`crate::Limits`] allows.
const MAX_FIELDS: usize = 16_384;

/// Decodes a message that came from the wire. `bytes` fields stay slices of it.
///
/// # Errors
/// `InvalidArg` for a message of too many fields, `Internal` for one that cannot be read.
pub fn decode_message<T: Message + Default>(wire: Bytes) -> Result<T> {
    let unreadable =
        |error: prost::DecodeError| ProtocolError::internal(format!("the message cannot be read: {error}"));
    let mut rest = &wire[..];
    for count in 1.. {
        if rest.is_empty() {
            break;
        }
        if count > MAX_FIELDS {
            return Err(ProtocolError::invalid(format!(
                "the message has more than {MAX_FIELDS} fields and elements of lists"
            )));
        }
        let (tag, wire_type) = decode_key(&mut rest).map_err(unreadable)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(unreadable)?;
    }
    T::decode(wire).map_err(unreadable)
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

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
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
    use crate::proto::ModelInferRequest;
    use crate::proto::model_infer_request::InferInputTensor;

    #[test]
    fn a_message_of_many_empty_fields_is_refused_before_it_is_built() {
        // Two bytes each on the wire, more than a hundred times that in memory.
        let wire = Bytes::from([0x2a, 0].repeat(10_000_000));
        let error = decode_message::<ModelInferRequest>(wire).unwrap_err();
        assert!(error.message.contains("more than 16384 fields"), "{}", error.message);
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
