//! KServe v2 on the wire: messages, JSON, binary tensors, data types, limits.
//!
//! Everything between received bytes and [`InferRequest`], and between [`InferResponse`] and bytes to send.
//! This crate is synchronous and knows no socket, no model and no queue: a caller hands in a whole body and
//! gets a request whose inputs are slices of that body wherever the format allows it.
//!
//! ```
//! use bytes::Bytes;
//! use trireme_protocol::{HttpInfer, Limits, decode_http_infer};
//!
//! let json = r#"{"inputs":[{"name":"IN","datatype":"INT32","shape":[2],"parameters":{"binary_data_size":8}}]}"#;
//! let body = Bytes::from([json.as_bytes(), &[1, 0, 0, 0, 2, 0, 0, 0]].concat());
//! let decoded = decode_http_infer("simple", None, body, Some(json.len()), &Limits::default())?;
//! let HttpInfer::Request(request) = decoded else { panic!("the JSON part is not empty") };
//! assert_eq!(request.inputs[0].name, "IN");
//! # Ok::<(), trireme_protocol::ProtocolError>(())
//! ```
//!
//! Numbers that are not finite travel in JSON as `NaN`, `Infinity` and `-Infinity`, in both directions: no JSON
//! number can say them, and clients of the C++ server send and read these words.
#![forbid(unsafe_code)]

pub mod answers;
pub mod bytes_tensor;
pub mod generate;
pub mod grpc;
pub mod infer;
pub mod repository;

mod dtype;
mod error;
mod json;
mod limits;
mod restricted;
mod shape;
mod status;

pub use dtype::DataType;
pub use error::{ProtocolError, Result, error_json};
pub use infer::{
    HEADER_LENGTH_HEADER, HeldTensor, HttpInfer, HttpInferBody, InferRequest, InferResponse, InputTensor,
    OutputTensor, ParameterValue, Parameters, RawInfer, RequestedOutput, SequenceControl, SequenceId,
    SharedMemoryRef, TensorData, TensorMeta, decode_http_infer, encode_http_infer, is_reserved_parameter,
    parse_header_length,
};
pub use limits::{Limits, PIECE_TIME, SLOWEST, time_for};
pub use restricted::{ApiGroup, Restrictions, forward_header};
pub use shape::{Shape, ShapeText, byte_count, element_count};
pub use status::StatusCode;

/// The messages of the package `inference`, generated from `proto/`.
pub mod proto {
    #![allow(clippy::all, unreachable_pub, missing_docs)]
    tonic::include_proto!("inference");
    /// The serialised `FileDescriptorSet` of all protos.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    /// The standard health service.
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
