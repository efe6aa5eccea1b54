//! Appends JSON to a byte buffer. Non-finite floats are written `NaN`, `Infinity` and `-Infinity`: no JSON
//! number can say them, and this is what clients of the C++ server already read.

use serde_json::ser::{CompactFormatter, Formatter};

/// Appends a quoted and escaped string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..i]);
        start = i + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Appends a signed whole number.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    // Writing to a Vec cannot fail, here and below.
    let _ = CompactFormatter.write_i64(out, value);
}

/// Appends an unsigned whole number.
pub(crate) fn write_u64(out: &mut Vec<u8>, value: u64) {
    let _ = CompactFormatter.write_u64(out, value);
}

/// Appends the shortest text that reads back as the same single-precision number.
pub(crate) fn write_f32(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        let _ = CompactFormatter.write_f32(out, value);
    } else {
        out.extend_from_slice(non_finite(value.is_nan(), value.is_sign_negative()));
    }
}

/// Appends the shortest text that reads back as the same double-precision number.
pub(crate) fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        let _ = CompactFormatter.write_f64(out, value);
    } else {
        out.extend_from_slice(non_finite(value.is_nan(), value.is_sign_negative()));
    }
}

const fn non_finite(nan: bool, negative: bool) -> &'static [u8] {
    match (nan, negative) {
        (true, _) => b"NaN",
        (false, false) => b"Infinity",
        (false, true) => b"-Infinity",
    }
}
