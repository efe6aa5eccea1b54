//! Answer to JSON object: every output a key, beside the model's name and version.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bytes_tensor;
use crate::error::{ProtocolError, Result};
use crate::infer::{InferResponse, OutputTensor, ParameterValue};
use crate::infer::{check_length, render_elements, write_parameter_value};
use crate::json::{write_i64, write_string};
use crate::shape::element_count;

enum Value<'a> {
    Text(&'a str),
    Version(i64),
    Parameter(&'a ParameterValue),
    Output(&'a OutputTensor),
}

/// Encodes one answer as a JSON object with sorted keys: the outputs, `id` where it is set, `model_name`,
/// `model_version` and the answer's parameters. A tensor of one element is a scalar, any other a flat array.
/// Where an output has the name of another key, the output is shown.
///
/// # Errors
/// As [`encode_http_infer`](crate::encode_http_infer).
pub fn encode_generate(response: &InferResponse) -> Result<Bytes> {
    let mut keys: BTreeMap<&str, Value<'_>> =
        response.parameters.iter().map(|(key, value)| (key, Value::Parameter(value))).collect();
    if !response.id.is_empty() {
        keys.insert("id", Value::Text(&response.id));
    }
    keys.insert("model_name", Value::Text(&response.model_name));
    keys.insert("model_version", Value::Version(response.model_version));
    keys.extend(response.outputs.iter().map(|output| (output.name.as_str(), Value::Output(output))));

    let mut out = Vec::with_capacity(256);
    for (i, (key, value)) in keys.into_iter().enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write_string(&mut out, key);
        out.push(b':');
        match value {
            Value::Text(text) => write_string(&mut out, text),
            Value::Version(version) => {
                out.push(b'"');
                write_i64(&mut out, version);
                out.push(b'"');
            }
            Value::Parameter(value) => write_parameter_value(&mut out, value),
            Value::Output(output) => write_tensor(&mut out, output)?,
        }
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

fn write_tensor(out: &mut Vec<u8>, output: &OutputTensor) -> Result<()> {
    check_length(output)?;
    let count = match output.datatype.byte_size() {
        None => bytes_tensor::elements(&output.data).count(),
        Some(_) => element_count(&output.shape).map_err(|e| ProtocolError::internal(e.message))?,
    };
    if count == 1 {
        return render_elements(out, output);
    }
    out.push(b'[');
    render_elements(out, output)?;
    out.push(b']');
    Ok(())
}
