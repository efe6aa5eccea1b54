//! The gRPC messages of inference to and from the request and answer of [`crate::infer`].

mod codec;
mod contents;
mod parameters;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use codec::{BoundedCodec, BoundedDecoder, decode_message};
pub use parameters::{from_proto as parameter_from_proto, to_proto as parameter_to_proto};
pub use request::{decode_grpc_infer, parse_version};
pub use response::encode_grpc_infer;
