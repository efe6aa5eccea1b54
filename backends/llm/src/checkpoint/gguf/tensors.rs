//! The tensor table of a GGUF file.

use super::Kind;
use super::cursor::Cursor;
use crate::checkpoint::index::WeightIndex;
use crate::checkpoint::mapping::Mapping;
use crate::checkpoint::weight::Weight;
use crate::checkpoint::weight_type::WeightType;

/// The format's own bound on dimensions.
const MAX_DIMS: u32 = 4;

struct Entry<'a> {
    name: &'a str,
    ty: WeightType,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

pub(super) fn read(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: usize,
    map: &Mapping,
) -> Result<WeightIndex, Kind> {
    // A name's length, dims, type and offset.
    let count = cursor.check_count("tensors", count, 24)?;
    let entries: Vec<_> = (0..count).map(|_| read_entry(cursor, alignment)).collect::<Result<_, _>>()?;
    let data = cursor.position().next_multiple_of(alignment) as u64;
    let file = map.bytes().len() as u64;
    let mut index = WeightIndex::default();
    for entry in entries {
        let begin = data.checked_add(entry.offset);
        let range = begin.and_then(|begin| Some((begin, begin.checked_add(entry.bytes)?)));
        let Some((begin, end)) = range else {
            return Err(Kind::Malformed(format!("the offset of tensor '{}' overflows", entry.name)));
        };
        if end > file {
            let missing_bytes = end - begin.max(file);
            return Err(Kind::Truncated { tensor: entry.name.to_owned(), missing_bytes });
        }
        let range = begin as usize..end as usize;
        index.add(Weight::mapped(entry.name.to_owned(), entry.ty, entry.shape, map.clone(), range))?;
    }
    Ok(index)
}

fn read_entry<'a>(cursor: &mut Cursor<'a>, alignment: usize) -> Result<Entry<'a>, Kind> {
    let name = cursor.string()?;
    let dims = cursor.u32()?;
    if dims > MAX_DIMS {
        return Err(Kind::Malformed(format!(
            "tensor '{name}' has {dims} dimensions, at most {MAX_DIMS} are allowed"
        )));
    }
    let mut shape = Vec::with_capacity(dims as usize);
    for _ in 0..dims {
        let dim = usize::try_from(cursor.u64()?);
        shape.push(dim.map_err(|_| Kind::Malformed(format!("a dimension of tensor '{name}' is too large")))?);
    }
    shape.reverse();
    let ty = weight_type(name, cursor.u32()?)?;
    let offset = cursor.u64()?;
    if offset % alignment as u64 != 0 {
        return Err(Kind::Malformed(format!(
            "the offset {offset} of tensor '{name}' is not aligned to {alignment}"
        )));
    }
    let bytes = ty.tensor_bytes(&shape).ok_or_else(|| {
        Kind::Malformed(format!("tensor '{name}' of type {ty:?} cannot have the shape {shape:?}"))
    })?;
    Ok(Entry { name, ty, shape, offset, bytes: bytes as u64 })
}

fn weight_type(name: &str, code: u32) -> Result<WeightType, Kind> {
    const NAMES: [&str; 31] = [
        "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K",
        "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S",
        "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16",
    ];
    match code {
        0 => Ok(WeightType::F32),
        1 => Ok(WeightType::F16),
        2 => Ok(WeightType::Q4_0),
        3 => Ok(WeightType::Q4_1),
        6 => Ok(WeightType::Q5_0),
        8 => Ok(WeightType::Q8_0),
        12 => Ok(WeightType::Q4K),
        14 => Ok(WeightType::Q6K),
        30 => Ok(WeightType::BF16),
        _ => {
            let ty = NAMES.get(code as usize).map_or_else(|| format!("number {code}"), |n| (*n).to_owned());
            Err(Kind::Unsupported(format!(
                "tensor type {ty} (of '{name}'; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K and Q6_K can be read)"
            )))
        }
    }
}
