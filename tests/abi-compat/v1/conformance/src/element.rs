//! Elements as bytes: little endian, BYTES framed.

use half::{bf16, f16};
use serde_json::Value;
use trireme_host::abi::DType;

/// The names of `config.pbtxt`, in the order of the types' numbers.
const NAMES: [&str; 14] = [
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];

pub(crate) fn dtype_of(name: &str) -> Option<DType> {
    let at = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(at + 1).ok().map(DType)
}

pub(crate) fn name_of(dtype: DType) -> &'static str {
    let at = usize::try_from(dtype.0).ok().and_then(|number| number.checked_sub(1));
    at.and_then(|at| NAMES.get(at)).copied().unwrap_or("an unknown type")
}

/// In bytes; none for BYTES.
pub(crate) fn width(dtype: DType) -> Option<usize> {
    match dtype {
        DType::BOOL | DType::UINT8 | DType::INT8 => Some(1),
        DType::UINT16 | DType::INT16 | DType::FP16 | DType::BF16 => Some(2),
        DType::UINT32 | DType::INT32 | DType::FP32 => Some(4),
        DType::UINT64 | DType::INT64 | DType::FP64 => Some(8),
        _ => None,
    }
}

pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::FP16 | DType::BF16 | DType::FP32 | DType::FP64)
}

/// Adds a small whole number.
pub(crate) fn put_small(dtype: DType, number: u8, data: &mut Vec<u8>) {
    match dtype {
        DType::BOOL => data.push(number & 1),
        DType::FP16 => data.extend(f16::from_f32(number.into()).to_le_bytes()),
        DType::BF16 => data.extend(bf16::from_f32(number.into()).to_le_bytes()),
        DType::FP32 => data.extend(f32::from(number).to_le_bytes()),
        DType::FP64 => data.extend(f64::from(number).to_le_bytes()),
        DType::BYTES => put_text(number.to_string().as_bytes(), data),
        _ => {
            let bytes = u64::from(number).to_le_bytes();
            data.extend_from_slice(&bytes[..width(dtype).unwrap_or(8)]);
        }
    }
}

pub(crate) fn put_text(text: &[u8], data: &mut Vec<u8>) {
    data.extend_from_slice(&(text.len() as u32).to_le_bytes());
    data.extend_from_slice(text);
}

/// Adds a JSON value; what is wrong with it otherwise.
pub(crate) fn put_value(dtype: DType, value: &Value, data: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("{value} is no {}", name_of(dtype));
    match (dtype, value) {
        (DType::BYTES, Value::String(text)) => put_text(text.as_bytes(), data),
        (DType::BOOL, Value::Bool(value)) => data.push(u8::from(*value)),
        (dtype, Value::Number(number)) if is_float(dtype) => {
            let number = number.as_f64().ok_or_else(wrong)?;
            match dtype {
                DType::FP16 => data.extend(f16::from_f64(number).to_le_bytes()),
                DType::BF16 => data.extend(bf16::from_f64(number).to_le_bytes()),
                DType::FP32 => data.extend((number as f32).to_le_bytes()),
                _ => data.extend(number.to_le_bytes()),
            }
        }
        (dtype, Value::Number(number)) if !matches!(dtype, DType::BYTES | DType::BOOL) => {
            let number = number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .ok_or_else(wrong)?;
            let width = width(dtype).ok_or_else(wrong)?;
            let signed = matches!(dtype, DType::INT8 | DType::INT16 | DType::INT32 | DType::INT64);
            let bits = 8 * width as u32 - u32::from(signed);
            let (low, high) = (if signed { -(1i128 << bits) } else { 0 }, (1i128 << bits) - 1);
            if number < low || number > high {
                return Err(wrong());
            }
            data.extend_from_slice(&number.to_le_bytes()[..width]);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// The elements of a float tensor.
pub(crate) fn floats(dtype: DType, data: &[u8]) -> Vec<f64> {
    macro_rules! read {
        ($ty:ty, $bytes:literal) => {
            data.as_chunks::<$bytes>().0.iter().map(|bytes| f64::from(<$ty>::from_le_bytes(*bytes))).collect()
        };
    }
    match dtype {
        DType::FP16 => read!(f16, 2),
        DType::BF16 => read!(bf16, 2),
        DType::FP32 => read!(f32, 4),
        _ => read!(f64, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_held_against_their_type() {
        let put = |dtype, value: Value| {
            let mut data = Vec::new();
            put_value(dtype, &value, &mut data).map(|()| data)
        };
        assert_eq!(put(DType::INT8, (-128).into()), Ok(vec![0x80]));
        assert_eq!(put(DType::UINT16, 258.into()), Ok(vec![2, 1]));
        assert_eq!(put(DType::UINT64, u64::MAX.into()), Ok(vec![0xff; 8]));
        assert_eq!(put(DType::FP32, 1.5.into()), Ok(1.5f32.to_le_bytes().to_vec()));
        assert_eq!(put(DType::BYTES, "ab".into()), Ok(vec![2, 0, 0, 0, b'a', b'b']));
        assert_eq!(put(DType::INT8, 128.into()), Err("128 is no TYPE_INT8".to_owned()));
        assert!(put(DType::UINT8, (-1).into()).is_err());
        assert!(put(DType::BOOL, 1.into()).is_err());
        assert!(put(DType::INT32, 1.5.into()).is_err());
        assert!(put(DType::BYTES, 1.into()).is_err());
    }

    #[test]
    fn small_numbers_fit_every_type() {
        for number in 1..=14 {
            let (dtype, mut data) = (DType(number), Vec::new());
            put_small(dtype, 2, &mut data);
            assert_eq!(data.len(), width(dtype).unwrap_or(5), "{}", name_of(dtype));
            if is_float(dtype) {
                assert_eq!(floats(dtype, &data), [2.0]);
            }
        }
    }
}
