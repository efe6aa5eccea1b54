//! The `data` of a JSON input, read straight into the bytes of its declared type.
//!
//! Arrays may nest in any way; only the flattened order and count matter. Nothing is allocated by what a
//! shape claims: the buffer grows with the text and ends at the limit.

use crate::bytes_tensor;
use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::json::{Number, Reader};

/// The elements of one JSON array and how many they were.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: usize,
}

/// How the elements may be written.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Form {
    /// An array with arrays in it, in any way.
    Nested,
    /// A single value, or an array of values.
    FlatOrScalar,
}

/// Reads the value that comes next.
///
/// # Errors
/// A type that JSON cannot carry, a value that is not of the type or not in its range, more than `limit` bytes
/// of elements, broken JSON, too deep nesting.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    datatype: DataType,
    form: Form,
    limit: usize,
) -> Result<Decoded> {
    match datatype {
        DataType::Bool => walk(reader, form, limit, |r| r.bool().map(|v| [u8::from(v)])),
        DataType::Uint8 => walk(reader, form, limit, |r| int(r, datatype, u8::to_le_bytes)),
        DataType::Uint16 => walk(reader, form, limit, |r| int(r, datatype, u16::to_le_bytes)),
        DataType::Uint32 => walk(reader, form, limit, |r| int(r, datatype, u32::to_le_bytes)),
        DataType::Uint64 => walk(reader, form, limit, |r| int(r, datatype, u64::to_le_bytes)),
        DataType::Int8 => walk(reader, form, limit, |r| int(r, datatype, i8::to_le_bytes)),
        DataType::Int16 => walk(reader, form, limit, |r| int(r, datatype, i16::to_le_bytes)),
        DataType::Int32 => walk(reader, form, limit, |r| int(r, datatype, i32::to_le_bytes)),
        DataType::Int64 => walk(reader, form, limit, |r| int(r, datatype, i64::to_le_bytes)),
        DataType::Fp32 => walk(reader, form, limit, |r| {
            let number = r.number()?;
            let value: f32 = parse(r, number, datatype)?;
            finite(r, number, value.is_infinite(), datatype)?;
            Ok(value.to_le_bytes())
        }),
        DataType::Fp64 => walk(reader, form, limit, |r| {
            let number = r.number()?;
            let value: f64 = parse(r, number, datatype)?;
            finite(r, number, value.is_infinite(), datatype)?;
            Ok(value.to_le_bytes())
        }),
        DataType::Bytes => {
            let mut out = Decoded { bytes: Vec::new(), count: 0 };
            each(reader, form, &mut |r| {
                let text = r.string()?;
                room(&out.bytes, bytes_tensor::LENGTH_BYTES + text.len(), limit)?;
                out.count += 1;
                bytes_tensor::push_element(&mut out.bytes, text.as_bytes())
            })?;
            Ok(out)
        }
        DataType::Fp16 | DataType::Bf16 => Err(ProtocolError::invalid(format!(
            "{datatype} data cannot be sent as JSON, use the binary data format"
        ))),
    }
}

/// Elements of `N` bytes each.
fn walk<const N: usize>(
    reader: &mut Reader<'_>,
    form: Form,
    limit: usize,
    mut element: impl FnMut(&mut Reader<'_>) -> Result<[u8; N]>,
) -> Result<Decoded> {
    // An element takes at least a digit and a comma. A small tensor gets its buffer at once, a large one
    // lets it grow with the text.
    let guess = (reader.left() / 2).saturating_mul(N).min(limit).min(4096);
    let mut bytes = Vec::with_capacity(guess);
    each(reader, form, &mut |r| {
        room(&bytes, N, limit)?;
        bytes.extend_from_slice(&element(r)?);
        Ok(())
    })?;
    Ok(Decoded { count: bytes.len() / N, bytes })
}

fn each(
    reader: &mut Reader<'_>,
    form: Form,
    leaf: &mut impl FnMut(&mut Reader<'_>) -> Result<()>,
) -> Result<()> {
    if form == Form::Nested {
        return nested(reader, leaf);
    }
    if reader.peek() != Some(b'[') {
        return leaf(reader);
    }
    reader.begin_array()?;
    let mut first = true;
    while reader.next_element(&mut first)? {
        leaf(reader)?;
    }
    Ok(())
}

/// Calls `leaf` for each element of the array, whatever arrays it is wrapped in. The reader's depth limit
/// bounds the recursion.
fn nested(reader: &mut Reader<'_>, leaf: &mut impl FnMut(&mut Reader<'_>) -> Result<()>) -> Result<()> {
    reader.begin_array()?;
    let mut first = true;
    while reader.next_element(&mut first)? {
        if reader.peek() == Some(b'[') {
            nested(reader, leaf)?;
        } else {
            leaf(reader)?;
        }
    }
    Ok(())
}

#[inline]
fn room(bytes: &[u8], more: usize, limit: usize) -> Result<()> {
    match bytes.len().checked_add(more) {
        Some(total) if total <= limit => Ok(()),
        _ => Err(ProtocolError::invalid(format!(
            "the tensor's size exceeds the maximum allowed value of {limit} bytes"
        ))),
    }
}

#[inline]
fn int<T: std::str::FromStr, const N: usize>(
    reader: &mut Reader<'_>,
    datatype: DataType,
    bytes: fn(T) -> [u8; N],
) -> Result<[u8; N]> {
    match reader.number()? {
        Number::Int(text) => match text.parse() {
            Ok(value) => Ok(bytes(value)),
            // "-0" is a whole number for JSON but no unsigned one for Rust.
            Err(_) if text == "-0" => Ok([0; N]),
            Err(_) => Err(reader.mismatch(format_args!("{text} is out of range for {datatype}"))),
        },
        Number::Float(text) => {
            Err(reader.mismatch(format_args!("{text} is not a whole number as {datatype} needs")))
        }
    }
}

#[inline]
fn parse<T: std::str::FromStr>(reader: &Reader<'_>, number: Number<'_>, datatype: DataType) -> Result<T> {
    let text = number.text();
    text.parse().map_err(|_| reader.mismatch(format_args!("{text} is no {datatype}")))
}

/// A text of digits that overflows its type is refused; the words for infinity are not.
#[inline]
fn finite(reader: &Reader<'_>, number: Number<'_>, infinite: bool, datatype: DataType) -> Result<()> {
    if infinite && !number.text().trim_start_matches('-').starts_with('I') {
        return Err(reader.mismatch(format_args!("{} is out of range for {datatype}", number.text())));
    }
    Ok(())
}
