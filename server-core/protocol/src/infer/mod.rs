//! Inference requests and answers, and their form on HTTP.

mod check;
mod controls;
mod decode;
mod decode_tensor;
mod encode;
mod json_data;
mod json_render;
mod meta;
mod parameters;
mod raw;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use check::{check_request, check_tensor_count};
pub(crate) use controls::{Door, set_parameter};
pub(crate) use decode::{check_parameter_count, parameter_value};
pub(crate) use decode_tensor::{TensorParameters, resolve_output, unknown_type};
pub(crate) use encode::{check_length, write_parameter_value};
pub(crate) use json_data::{Form, decode as decode_elements};
pub(crate) use json_render::elements as render_elements;

pub use controls::is_reserved_parameter;
pub use decode::{HEADER_LENGTH_HEADER, HttpInfer, decode_http_infer, parse_header_length};
pub use encode::{HttpInferBody, encode_http_infer};
pub use meta::TensorMeta;
pub use parameters::{ParameterValue, Parameters};
pub use raw::RawInfer;
pub use request::{
    HeldTensor, InferRequest, InputTensor, RequestedOutput, SequenceControl, SequenceId, SharedMemoryRef,
    TensorData,
};
pub use response::{InferResponse, OutputTensor};
