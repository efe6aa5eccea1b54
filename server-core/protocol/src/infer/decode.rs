//! HTTP body to request: the JSON part, and the binary tensors behind it.
//!
//! ```text
//! |<- Inference-Header-Content-Length ->|
//! | {"inputs":[{…"binary_data_size":64}, {…"binary_data_size":8}]} | 64 bytes | 8 bytes |
//! ```

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::{ProtocolError, Result};
use crate::infer::check::{check_request, check_tensor_count};
use crate::infer::controls::{Door, set_parameter};
use crate::infer::decode_tensor::{Pending, input, output};
use crate::infer::parameters::ParameterValue;
use crate::infer::raw::RawInfer;
use crate::infer::request::{InferRequest, InputTensor, TensorData};
use crate::json::{Kind, Number, Reader};
use crate::limits::Limits;

/// The HTTP header that says how many bytes of a body are JSON.
pub const HEADER_LENGTH_HEADER: &str = "Inference-Header-Content-Length";

/// What an HTTP body turned out to be.
#[derive(Clone, PartialEq, Debug)]
pub enum HttpInfer {
    /// A request as JSON, with or without binary tensors behind it.
    Request(InferRequest),
    /// The whole body is the model's only input (header length 0); the model says its name and shape.
    Raw(RawInfer),
}

/// Reads the value of `Inference-Header-Content-Length`.
///
/// # Errors
/// Anything but a decimal number that fits `usize`.
pub fn parse_header_length(value: &str) -> Result<usize> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| {
        ProtocolError::invalid(format!(
            "Unable to parse {HEADER_LENGTH_HEADER}, got: {}",
            value.escape_debug()
        ))
    })
}

/// Decodes the body of an infer request. `header_length` is the header's value: `None` where it is absent
/// (the whole body is JSON), 0 for a raw binary request. Binary inputs are slices of `body`.
///
/// # Errors
/// Always `InvalidArg`; the text names the field or the input.
pub fn decode_http_infer(
    model_name: &str,
    model_version: Option<i64>,
    body: Bytes,
    header_length: Option<usize>,
    limits: &Limits,
) -> Result<HttpInfer> {
    limits.check_body(body.len())?;
    let mut request = InferRequest::new(model_name, model_version);
    if header_length == Some(0) {
        request.binary_data_output = true;
        return Ok(HttpInfer::Raw(RawInfer { request, data: body }));
    }
    let json_length = header_length.unwrap_or(body.len());
    let Some((json, _)) = body.split_at_checked(json_length) else {
        return Err(ProtocolError::invalid(format!(
            "{HEADER_LENGTH_HEADER} is {json_length}, but the body has only {} bytes",
            body.len()
        )));
    };
    let mut reader = Reader::new(json, limits.json_depth)?;
    let mut tail = Tail { body: &body, at: json_length };
    parse_request(&mut reader, &mut request, &mut tail, limits)?;
    if tail.at != body.len() {
        return Err(ProtocolError::invalid(format!(
            "unexpected additional input data for model '{model_name}': {} bytes after the last input",
            body.len() - tail.at
        )));
    }
    check_request(&request, limits)?;
    Ok(HttpInfer::Request(request))
}

/// The binary part of the body, taken from the front.
struct Tail<'a> {
    body: &'a Bytes,
    at: usize,
}

impl Tail<'_> {
    /// A slice of the received body, not a copy.
    fn take(&mut self, size: u64) -> Option<Bytes> {
        let end = self.at.checked_add(usize::try_from(size).ok()?)?;
        if end > self.body.len() {
            return None;
        }
        let part = self.body.slice(self.at..end);
        self.at = end;
        Some(part)
    }
}

fn parse_request(
    reader: &mut Reader<'_>,
    request: &mut InferRequest,
    tail: &mut Tail<'_>,
    limits: &Limits,
) -> Result<()> {
    let mut first = true;
    let mut seen = Seen::default();
    reader.begin_object()?;
    while let Some(key) = reader.next_key(&mut first)? {
        match key.as_ref() {
            "id" => {
                seen.once("id")?;
                request.id = reader.string().map_err(|e| e.within("Unable to parse 'id'"))?.into_owned();
            }
            "parameters" => {
                seen.once("parameters")?;
                parameters(reader, request, limits)?;
            }
            "inputs" => {
                seen.once("inputs")?;
                inputs(reader, request, tail, limits)?;
            }
            "outputs" => {
                seen.once("outputs")?;
                let mut first = true;
                reader.begin_array().map_err(|e| e.within("Unable to parse 'outputs'"))?;
                while reader.next_element(&mut first)? {
                    check_tensor_count("requested output", request.outputs.len() + 1, limits)?;
                    request.outputs.push(output(reader)?);
                }
            }
            _ => drop(reader.skip()?),
        }
    }
    reader.end()?;
    if !seen.has("inputs") {
        return Err(ProtocolError::invalid("the request has no 'inputs'"));
    }
    Ok(())
}

fn inputs(
    reader: &mut Reader<'_>,
    request: &mut InferRequest,
    tail: &mut Tail<'_>,
    limits: &Limits,
) -> Result<()> {
    let mut first = true;
    let mut expanded = 0;
    reader.begin_array().map_err(|e| e.within("Unable to parse 'inputs'"))?;
    while reader.next_element(&mut first)? {
        check_tensor_count("input", request.inputs.len() + 1, limits)?;
        // The limit is for all JSON tensors of the request together.
        let parsed = input(reader, limits.max_body - expanded, limits)?;
        let data = match parsed.data {
            Pending::Json(data) => {
                expanded += data.len();
                TensorData::Bytes(data)
            }
            Pending::SharedMemory(part) => TensorData::SharedMemory(part),
            Pending::Binary(size) => TensorData::Bytes(tail.take(size).ok_or_else(|| {
                ProtocolError::invalid(format!(
                    "unexpected size for input '{}', expecting {size} additional bytes for model '{}', got {}",
                    parsed.name,
                    request.model_name,
                    tail.body.len() - tail.at
                ))
            })?),
        };
        request.inputs.push(InputTensor {
            name: parsed.name,
            datatype: parsed.datatype,
            shape: parsed.shape,
            data,
        });
    }
    Ok(())
}

fn parameters(reader: &mut Reader<'_>, request: &mut InferRequest, limits: &Limits) -> Result<()> {
    let mut first = true;
    let mut count = 0;
    reader.begin_object().map_err(|e| e.within("Unable to parse 'parameters'"))?;
    while let Some(key) = reader.next_key(&mut first)? {
        count += 1;
        check_parameter_count(count, limits)?;
        let value = parameter_value(reader, &key)?;
        set_parameter(request, &key, value, Door::Http)?;
    }
    Ok(())
}

pub(crate) fn check_parameter_count(count: usize, limits: &Limits) -> Result<()> {
    if count > limits.max_parameters {
        return Err(ProtocolError::invalid(format!(
            "more than {} parameters in one request",
            limits.max_parameters
        )));
    }
    Ok(())
}

/// A parameter's value: bool, number or string.
pub(crate) fn parameter_value(reader: &mut Reader<'_>, key: &str) -> Result<ParameterValue> {
    let bad = |got: &str| {
        ProtocolError::invalid(format!(
            "parameter '{key}' has invalid type. It must be a bool, a number or a string, got {got}"
        ))
    };
    match reader.kind()? {
        Kind::Bool => reader.bool().map(ParameterValue::Bool),
        Kind::String => reader.string().map(Cow::into_owned).map(ParameterValue::String),
        Kind::Number => {
            let number = reader.number()?;
            if let Number::Int(text) = number {
                if let Ok(value) = text.parse() {
                    return Ok(ParameterValue::Int64(value));
                }
                if let Ok(value) = text.parse() {
                    return Ok(ParameterValue::Uint64(value));
                }
            }
            match number.text().parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(ParameterValue::Double(value)),
                _ => Err(bad(number.text())),
            }
        }
        other => Err(bad(other.name())),
    }
}

/// Which keys of an object have been read: a key twice has no meaning, so it is refused.
#[derive(Default)]
pub(crate) struct Seen(smallvec::SmallVec<[&'static str; 6]>);

impl Seen {
    pub(crate) fn once(&mut self, key: &'static str) -> Result<()> {
        if self.has(key) {
            return Err(ProtocolError::invalid(format!("'{key}' is given twice in one object")));
        }
        self.0.push(key);
        Ok(())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains(&key)
    }
}
