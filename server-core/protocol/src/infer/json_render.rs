//! A tensor's elements as JSON, straight from its bytes.

use crate::bytes_tensor;
use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::infer::response::OutputTensor;
use crate::json::{write_f32, write_f64, write_i64, write_string, write_u64};

/// Appends the elements with commas between them, without brackets.
///
/// # Errors
/// FP16 and BF16, and BYTES elements that are not UTF-8 (`InvalidArg`, the caller must ask for binary);
/// broken BYTES framing (`Internal`).
pub(crate) fn elements(out: &mut Vec<u8>, output: &OutputTensor) -> Result<()> {
    let data = &output.data;
    match output.datatype {
        DataType::Bool => fixed(out, data, |o, [v]: [u8; 1]| {
            o.extend_from_slice(if v != 0 { b"true" } else { b"false" });
        }),
        DataType::Uint8 => fixed(out, data, |o, v| write_u64(o, u8::from_le_bytes(v).into())),
        DataType::Uint16 => fixed(out, data, |o, v| write_u64(o, u16::from_le_bytes(v).into())),
        DataType::Uint32 => fixed(out, data, |o, v| write_u64(o, u32::from_le_bytes(v).into())),
        DataType::Uint64 => fixed(out, data, |o, v| write_u64(o, u64::from_le_bytes(v))),
        DataType::Int8 => fixed(out, data, |o, v| write_i64(o, i8::from_le_bytes(v).into())),
        DataType::Int16 => fixed(out, data, |o, v| write_i64(o, i16::from_le_bytes(v).into())),
        DataType::Int32 => fixed(out, data, |o, v| write_i64(o, i32::from_le_bytes(v).into())),
        DataType::Int64 => fixed(out, data, |o, v| write_i64(o, i64::from_le_bytes(v))),
        DataType::Fp32 => fixed(out, data, |o, v| write_f32(o, f32::from_le_bytes(v))),
        DataType::Fp64 => fixed(out, data, |o, v| write_f64(o, f64::from_le_bytes(v))),
        DataType::Bytes => strings(out, output)?,
        DataType::Fp16 | DataType::Bf16 => {
            return Err(ProtocolError::invalid(format!(
                "{} output '{}' cannot be sent as JSON, ask for it with the parameter \"binary_data\": true",
                output.datatype, output.name
            )));
        }
    }
    Ok(())
}

fn fixed<const N: usize>(out: &mut Vec<u8>, data: &[u8], write: impl Fn(&mut Vec<u8>, [u8; N])) {
    for (i, value) in data.as_chunks::<N>().0.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, *value);
    }
}

fn strings(out: &mut Vec<u8>, output: &OutputTensor) -> Result<()> {
    for (i, element) in bytes_tensor::elements(&output.data).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let bytes = element.map_err(|e| ProtocolError::internal(format!("output '{}': {e}", output.name)))?;
        let text = std::str::from_utf8(bytes).map_err(|_| {
            ProtocolError::invalid(format!(
                "element {i} of output '{}' is not UTF-8 and cannot be sent as JSON, ask for it with the \
                 parameter \"binary_data\": true",
                output.name
            ))
        })?;
        write_string(out, text);
    }
    Ok(())
}
