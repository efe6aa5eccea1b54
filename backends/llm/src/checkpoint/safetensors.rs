//! Weights from one `.safetensors` file.
//!
//! ```text
//! | n: u64 | n bytes of JSON: name -> dtype, shape, [begin, end) | data ... |
//! ```

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::index::WeightIndex;
use super::mapping::Mapping;
use super::weight::Weight;
use super::weight_type::WeightType;

/// Bound on the JSON header, the format's own.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Adds all weights of the file to `index`. Tensors of other types (position ids, say) are noted but not kept.
pub(super) fn read(path: &Path, index: &mut WeightIndex) -> Result<(), CheckpointError> {
    let map = Mapping::open(path).map_err(|e| Kind::from(e).at(path))?;
    read_mapped(map, index).map_err(|kind| kind.at(path))
}

/// The same for a file that is mapped already.
pub(super) fn read_mapped(map: Mapping, index: &mut WeightIndex) -> Result<(), Kind> {
    let file = map.bytes();
    let (header, data_start) = header(file)?;
    let data_len = file.len() - data_start;
    let mut tensors: Vec<_> = header.tensors().into_iter().collect();
    tensors.sort_by(|a, b| a.1.data_offsets.cmp(&b.1.data_offsets).then_with(|| a.0.cmp(&b.0)));
    for (name, info) in tensors {
        let ty = match info.dtype {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::BF16,
            other => {
                index.ignore(name, format!("{other:?}"));
                continue;
            }
        };
        let (begin, end) = info.data_offsets;
        let len = end.checked_sub(begin);
        if len.is_none() || len != ty.tensor_bytes(&info.shape) {
            return Err(Kind::Malformed(format!(
                "tensor '{name}' of type {ty:?} and shape {:?} cannot lie at bytes {begin}..{end}",
                info.shape
            )));
        }
        if end > data_len {
            let missing_bytes = (end - begin.max(data_len)) as u64;
            return Err(Kind::Truncated { tensor: name, missing_bytes });
        }
        let range = data_start + begin..data_start + end;
        index.add(Weight::mapped(name, ty, info.shape.clone(), map.clone(), range))?;
    }
    Ok(())
}

/// The parsed header, and where the data begins.
fn header(file: &[u8]) -> Result<(Metadata, usize), Kind> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Kind::NotACheckpoint("shorter than the 8 bytes of a safetensors header".into()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
        return Err(Kind::Malformed(format!(
            "the safetensors header claims {length} bytes, the file has {} after it and the limit is {MAX_HEADER_BYTES}",
            rest.len()
        )));
    }
    let json = &rest[..length as usize];
    let header = serde_json::from_slice(json)
        .map_err(|e| Kind::Malformed(format!("the safetensors header cannot be parsed: {e}")))?;
    Ok((header, 8 + json.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn read_bytes(bytes: &[u8]) -> Result<WeightIndex, CheckpointError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut index = WeightIndex::default();
        read(file.path(), &mut index).map(|()| index)
    }

    fn sample() -> Vec<u8> {
        let json = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[24,30]}}"#;
        let mut out = (json.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(json.as_bytes());
        out.extend(1..=30);
        out
    }

    #[test]
    fn weights_are_found_and_others_noted() {
        let index = read_bytes(&sample()).unwrap();
        let b = index.get("b").unwrap();
        assert_eq!(
            (b.ty, b.shape.as_slice(), b.bytes()),
            (WeightType::BF16, &[3][..], &[25, 26, 27, 28, 29, 30][..])
        );
        assert_eq!(index.get("a").unwrap().row(1), &[9, 10, 11, 12, 13, 14, 15, 16]);
        let missing = index.missing("ids").to_string();
        assert_eq!(
            missing,
            "has no tensor 'ids' of a type that can be used (it is I64; F32, F16 and BF16 can)"
        );
    }

    #[test]
    fn a_cut_file_names_the_tensor_and_the_bytes() {
        let whole = sample();
        let err = read_bytes(&whole[..whole.len() - 4]).err().unwrap().to_string();
        assert!(
            err.ends_with("is cut off: tensor 'b' misses its last 4 bytes; fetch the file again"),
            "{err}"
        );
        let err = read_bytes(&whole[..whole.len() - 20]).err().unwrap().to_string();
        assert!(err.contains("tensor 'a' misses its last 6 bytes"), "{err}");
        assert!(read_bytes(&whole[..20]).err().unwrap().to_string().contains("header claims"));
        assert!(read_bytes(&[]).err().unwrap().to_string().contains("the file is empty"));
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        let json = r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,16]}}"#;
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        let err = read_bytes(&file).err().unwrap().to_string();
        assert!(err.contains("is malformed"), "{err}");
    }

    proptest! {
        #[test]
        fn corrupt_files_are_answered(at in 0usize..200, byte: u8, cut in 0usize..220) {
            let mut file = sample();
            let n = file.len();
            file[at % n] = byte;
            file.truncate(n - cut.min(n - 1));
            let _ = read_bytes(&file);
        }
    }
}
