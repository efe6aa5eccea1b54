//! The data of a sample's input: zeros, random values, or a file.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use bytes::Bytes;
use trireme_protocol::proto::model_warmup::Input;
use trireme_protocol::proto::model_warmup::input::InputDataType;
use trireme_protocol::{DataType, bytes_tensor, element_count};

/// An input larger than this, in bytes, is a slip in the configuration.
const MAX_BYTES: usize = 4 << 30;

/// The data of one batch element of the shape `dims`.
pub(super) fn element(
    given: &Input,
    datatype: DataType,
    dims: &[i64],
    model_dir: &Path,
) -> Result<Vec<u8>, String> {
    let count = element_count(dims).map_err(|error| error.to_string())?;
    // Of BYTES, zeros are empty texts: a length of 0 for each.
    let size = count.checked_mul(datatype.byte_size().unwrap_or(4)).filter(|size| *size <= MAX_BYTES);
    let size = size.ok_or_else(|| format!("it has more than {MAX_BYTES} bytes"))?;
    match &given.input_data_type {
        Some(InputDataType::InputDataFile(file)) => {
            let path = crate::files::inside(&model_dir.join("warmup"), file)?;
            let data = crate::files::read_at_most(&path, MAX_BYTES as u64)?;
            let fits = match datatype.byte_size() {
                Some(_) if data.len() == size => Ok(()),
                Some(_) => Err(format!("it has {} bytes where {size} are expected", data.len())),
                None => bytes_tensor::validate(&data, count).map_err(|error| error.to_string()),
            };
            fits.map_err(|error| format!("'{}': {error}", path.display()))?;
            Ok(data)
        }
        Some(InputDataType::RandomData(true)) => Ok(random(datatype, size)),
        _ => Ok(vec![0; size]),
    }
}

/// The data of so many equal batch elements.
pub(super) fn repeat(element: Vec<u8>, batch_size: u32) -> Result<Bytes, String> {
    let times = batch_size as usize;
    if element.len().saturating_mul(times) > MAX_BYTES {
        return Err(format!("a batch has more than {MAX_BYTES} bytes"));
    }
    Ok(if times == 1 { element.into() } else { element.repeat(times).into() })
}

/// Any bytes make an integer, but not a number: fractions lie in [0.5, 1).
fn random(datatype: DataType, size: usize) -> Vec<u8> {
    if datatype == DataType::Bytes {
        return vec![0; size];
    }
    let mut next = generator();
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        let bits = next();
        match datatype {
            DataType::Bool => data.push((bits & 1) as u8),
            DataType::Fp16 => data.extend(((bits as u16 & 0x03ff) | 0x3800).to_le_bytes()),
            DataType::Bf16 => data.extend(((bits as u16 & 0x007f) | 0x3f00).to_le_bytes()),
            DataType::Fp32 => data.extend(((bits as u32 & 0x007f_ffff) | 0x3f00_0000).to_le_bytes()),
            DataType::Fp64 => {
                data.extend(((bits & 0x000f_ffff_ffff_ffff) | 0x3fe0_0000_0000_0000).to_le_bytes());
            }
            _ => data.extend(bits.to_le_bytes()),
        }
    }
    data.truncate(size);
    data
}

/// Splitmix64, from a seed of the process.
fn generator() -> impl FnMut() -> u64 {
    let mut state = RandomState::new().hash_one(0);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(data: InputDataType, datatype: DataType, dims: &[i64], dir: &Path) -> Result<Vec<u8>, String> {
        let given = Input { data_type: 0, dims: dims.to_vec(), input_data_type: Some(data) };
        element(&given, datatype, dims, dir)
    }

    #[test]
    fn zeros_and_random_values() {
        let none = Path::new("");
        assert_eq!(of(InputDataType::ZeroData(true), DataType::Int32, &[3], none).unwrap(), [0; 12]);
        assert_eq!(of(InputDataType::RandomData(true), DataType::Bytes, &[2, 1], none).unwrap(), [0; 8]);
        for datatype in DataType::ALL {
            let data = of(InputDataType::RandomData(true), datatype, &[5], none).unwrap();
            assert_eq!(data.len(), 5 * datatype.byte_size().unwrap_or(4), "{datatype:?}");
        }
        let random = of(InputDataType::RandomData(true), DataType::Fp32, &[100], none).unwrap();
        for value in random.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())) {
            assert!((0.5..1.0).contains(&value), "{value}");
        }
        assert!(of(InputDataType::ZeroData(true), DataType::Fp64, &[1 << 40], none).is_err());
        assert_eq!(repeat(vec![1, 2], 2).unwrap().as_ref(), [1, 2, 1, 2]);
    }

    #[test]
    fn files_fit_the_sample_and_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("warmup")).unwrap();
        std::fs::write(dir.path().join("warmup/x"), [1, 0, 0, 0]).unwrap();
        std::fs::write(dir.path().join("outside"), "").unwrap();
        let file = |name: &str, datatype, dims: &[i64]| {
            of(InputDataType::InputDataFile(name.to_owned()), datatype, dims, dir.path())
        };
        assert_eq!(file("x", DataType::Int32, &[1]).unwrap(), [1, 0, 0, 0]);
        assert!(
            file("x", DataType::Int32, &[2]).unwrap_err().ends_with("it has 4 bytes where 8 are expected")
        );
        assert!(file("x", DataType::Bytes, &[1]).is_err());
        assert!(file("../outside", DataType::Bytes, &[0]).unwrap_err().contains("leaves"));
        assert!(file("y", DataType::Int32, &[1]).is_err());
    }
}
