//! Typed `contents` of a gRPC input to the bytes of its declared type.
//!
//! | type | field |
//! |---|---|
//! | BOOL | `bool_contents` |
//! | INT8, INT16, INT32 | `int_contents` |
//! | INT64 | `int64_contents` |
//! | UINT8, UINT16, UINT32 | `uint_contents` |
//! | UINT64 | `uint64_contents` |
//! | FP32, FP64 | `fp32_contents`, `fp64_contents` |
//! | BYTES | `bytes_contents` |
//! | FP16, BF16 | none: raw only |

use crate::bytes_tensor;
use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::proto::InferTensorContents;

/// The bytes, and how many elements they are.
///
/// # Errors
/// A type without a field, a value out of the type's range, values in another type's field, more than
/// `limit` bytes.
pub(super) fn to_bytes(
    contents: &InferTensorContents,
    datatype: DataType,
    limit: usize,
) -> Result<(Vec<u8>, usize)> {
    let field = field_of(datatype)?;
    if let Some(other) = filled(contents).into_iter().find(|f| *f != field) {
        return Err(ProtocolError::invalid(format!(
            "{datatype} data must be given in '{field}', but '{other}' is set"
        )));
    }
    let c = contents;
    match datatype {
        DataType::Bool => fixed(&c.bool_contents, limit, |v| Some([u8::from(*v)])),
        DataType::Int8 => fixed(&c.int_contents, limit, |v| i8::try_from(*v).ok().map(i8::to_le_bytes)),
        DataType::Int16 => fixed(&c.int_contents, limit, |v| i16::try_from(*v).ok().map(i16::to_le_bytes)),
        DataType::Int32 => fixed(&c.int_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Int64 => fixed(&c.int64_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Uint8 => fixed(&c.uint_contents, limit, |v| u8::try_from(*v).ok().map(u8::to_le_bytes)),
        DataType::Uint16 => fixed(&c.uint_contents, limit, |v| u16::try_from(*v).ok().map(u16::to_le_bytes)),
        DataType::Uint32 => fixed(&c.uint_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Uint64 => fixed(&c.uint64_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Fp32 => fixed(&c.fp32_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Fp64 => fixed(&c.fp64_contents, limit, |v| Some(v.to_le_bytes())),
        DataType::Bytes => {
            let mut out = Vec::new();
            for element in &c.bytes_contents {
                room(out.len().checked_add(bytes_tensor::LENGTH_BYTES + element.len()), limit)?;
                bytes_tensor::push_element(&mut out, element)?;
            }
            Ok((out, c.bytes_contents.len()))
        }
        DataType::Fp16 | DataType::Bf16 => Err(raw_only(datatype)),
    }
    .map_err(|e| e.within(field))
}

fn field_of(datatype: DataType) -> Result<&'static str> {
    Ok(match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return Err(raw_only(datatype)),
    })
}

/// The fields that hold something.
pub(super) fn filled(c: &InferTensorContents) -> impl IntoIterator<Item = &'static str> + use<> {
    [
        ("bool_contents", c.bool_contents.is_empty()),
        ("int_contents", c.int_contents.is_empty()),
        ("int64_contents", c.int64_contents.is_empty()),
        ("uint_contents", c.uint_contents.is_empty()),
        ("uint64_contents", c.uint64_contents.is_empty()),
        ("fp32_contents", c.fp32_contents.is_empty()),
        ("fp64_contents", c.fp64_contents.is_empty()),
        ("bytes_contents", c.bytes_contents.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, empty)| (!empty).then_some(name))
}

fn fixed<T: std::fmt::Display, const N: usize>(
    values: &[T],
    limit: usize,
    bytes: impl Fn(&T) -> Option<[u8; N]>,
) -> Result<(Vec<u8>, usize)> {
    room(values.len().checked_mul(N), limit)?;
    let mut out = Vec::with_capacity(values.len() * N);
    for value in values {
        let element = bytes(value)
            .ok_or_else(|| ProtocolError::invalid(format!("{value} does not fit {} bits", N * 8)))?;
        out.extend_from_slice(&element);
    }
    Ok((out, values.len()))
}

fn room(size: Option<usize>, limit: usize) -> Result<()> {
    match size {
        Some(size) if size <= limit => Ok(()),
        _ => Err(ProtocolError::invalid(format!(
            "the tensor's size exceeds the maximum allowed value of {limit} bytes"
        ))),
    }
}

fn raw_only(datatype: DataType) -> ProtocolError {
    ProtocolError::invalid(format!("{datatype} data must be given in 'raw_input_contents'"))
}
