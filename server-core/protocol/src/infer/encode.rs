//! Answer to HTTP body: JSON with the binary tensors behind it.

use bytes::Bytes;

use crate::error::{ProtocolError, Result};
use crate::infer::json_render;
use crate::infer::parameters::{ParameterValue, Parameters};
use crate::infer::response::{InferResponse, OutputTensor};
use crate::json::{write_f64, write_i64, write_string, write_u64};
use crate::shape::byte_count;

/// Binary outputs up to this many bytes together are copied behind the JSON: one write of one buffer is
/// cheaper than a vectored one. Larger ones are sent from where they are.
const COPY_UP_TO: usize = 16 << 10;

/// An HTTP answer, ready to be sent.
#[derive(Clone, PartialEq, Debug)]
pub struct HttpInferBody {
    /// The value of `Inference-Header-Content-Length`; `None` where the body is JSON alone.
    pub json_len: Option<usize>,
    /// The body in its pieces, none empty.
    pub pieces: Vec<Bytes>,
}

impl HttpInferBody {
    /// The value of `Content-Length`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Never true: the JSON part is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        if self.json_len.is_some() { "application/octet-stream" } else { "application/json" }
    }
}

/// Encodes an answer; large binary outputs are handed on without a copy.
///
/// # Errors
/// `InvalidArg` for an output that JSON cannot carry (FP16, BF16, BYTES that are not UTF-8): the caller must
/// ask for it as binary. `Internal` for an output whose length does not fit its shape.
pub fn encode_http_infer(response: &InferResponse) -> Result<HttpInferBody> {
    let binary = || response.outputs.iter().filter(|o| is_binary(o));
    let tail: usize = binary().map(|o| o.data.len()).sum();
    let copied = if tail <= COPY_UP_TO { tail } else { 0 };
    let mut out = Vec::with_capacity(estimate(response) + copied);
    write_head(&mut out, response);
    out.extend_from_slice(b",\"outputs\":[");
    for (i, output) in response.outputs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_output(&mut out, output)?;
    }
    out.extend_from_slice(b"]}");
    let json_len = out.len();
    if copied == tail {
        binary().for_each(|o| out.extend_from_slice(&o.data));
        let json_len = (tail > 0).then_some(json_len);
        return Ok(HttpInferBody { json_len, pieces: vec![Bytes::from(out)] });
    }
    let mut pieces = vec![Bytes::from(out)];
    pieces.extend(binary().filter(|o| !o.data.is_empty()).map(|o| o.data.clone()));
    Ok(HttpInferBody { json_len: Some(json_len), pieces })
}

const fn is_binary(output: &OutputTensor) -> bool {
    output.binary && output.shared_memory.is_none()
}

/// About how long the JSON gets; JSON numbers are taken as three characters a byte.
fn estimate(response: &InferResponse) -> usize {
    let outputs = response.outputs.iter();
    let data: usize =
        outputs.map(|o| 160 + o.name.len() + if is_binary(o) { 0 } else { o.data.len() * 3 }).sum();
    96 + response.id.len() + response.model_name.len() + 48 * response.parameters.len() + data
}

/// Everything before the outputs: `{"id":…,"model_name":…,"model_version":…,"parameters":…`.
fn write_head(out: &mut Vec<u8>, response: &InferResponse) {
    out.push(b'{');
    if !response.id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        write_string(out, &response.id);
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    write_string(out, &response.model_name);
    out.extend_from_slice(b",\"model_version\":\"");
    write_i64(out, response.model_version);
    out.push(b'"');
    if !response.parameters.is_empty() {
        out.extend_from_slice(b",\"parameters\":");
        write_parameters(out, &response.parameters);
    }
}

fn write_parameters(out: &mut Vec<u8>, parameters: &Parameters) {
    for (i, (key, value)) in parameters.iter().enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write_string(out, key);
        out.push(b':');
        write_parameter_value(out, value);
    }
    out.push(b'}');
}

pub(crate) fn write_parameter_value(out: &mut Vec<u8>, value: &ParameterValue) {
    match value {
        ParameterValue::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        ParameterValue::Int64(v) => write_i64(out, *v),
        ParameterValue::Uint64(v) => write_u64(out, *v),
        ParameterValue::Double(v) => write_f64(out, *v),
        ParameterValue::String(v) => write_string(out, v),
    }
}

fn write_output(out: &mut Vec<u8>, output: &OutputTensor) -> Result<()> {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &output.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(output.datatype.wire_name().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    for (i, dim) in output.shape.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_i64(out, *dim);
    }
    out.push(b']');
    if output.shared_memory.is_some() {
        // The protocol's text has the region here. tritonserver does not write it, and Triton's C++ client takes any
        // parameters of an output for those of binary data.
        out.push(b'}');
        return Ok(());
    }
    check_length(output)?;
    if output.binary {
        out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write_u64(out, output.data.len() as u64);
        out.extend_from_slice(b"}}");
    } else {
        out.extend_from_slice(b",\"data\":[");
        json_render::elements(out, output)?;
        out.extend_from_slice(b"]}");
    }
    Ok(())
}

/// A tensor of a fixed-size type must have the length that its shape says.
pub(crate) fn check_length(output: &OutputTensor) -> Result<()> {
    let expected = byte_count(output.datatype, &output.shape)
        .map_err(|e| ProtocolError::internal(format!("output '{}': {}", output.name, e.message)))?;
    match expected {
        Some(expected) if expected != output.data.len() => Err(ProtocolError::internal(format!(
            "output '{}' has {} bytes, its shape needs {expected}",
            output.name,
            output.data.len()
        ))),
        _ => Ok(()),
    }
}
