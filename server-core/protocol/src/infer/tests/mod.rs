//! The HTTP codec at the level of its promise: bodies in, requests or refusals out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod binary;
mod encode;
mod json;
mod refusals;
mod round_trip;

use bytes::Bytes;

use crate::{HttpInfer, InferRequest, Limits, StatusCode, TensorData, decode_http_infer};

/// Decodes a JSON text with a binary tail; the header is given where there is a tail.
fn decode(json: &str, tail: &[u8]) -> crate::Result<InferRequest> {
    let body = Bytes::from([json.as_bytes(), tail].concat());
    let header = (!tail.is_empty()).then_some(json.len());
    match decode_http_infer("m", None, body, header, &Limits::default())? {
        HttpInfer::Request(request) => Ok(request),
        HttpInfer::Raw(_) => panic!("not a raw request"),
    }
}

/// The text of a refusal, which is always the caller's fault.
fn refusal(json: &str, tail: &[u8]) -> String {
    let error = decode(json, tail).unwrap_err();
    assert_eq!(error.status, StatusCode::InvalidArg, "{error}");
    error.message
}

/// One input of a type and shape with this `data`.
fn one(datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"I","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
}

fn bytes(request: &InferRequest, input: usize) -> &[u8] {
    match &request.inputs[input].data {
        TensorData::Bytes(data) => data,
        _ => panic!("not bytes"),
    }
}
