//! The classification extension: the best classes of an output in the place of its numbers.

use std::fmt::Write;

use trireme_protocol::{DataType, OutputTensor, bytes_tensor};

use crate::error::ServeError;

/// Outputs of more elements are refused: sorting them costs more than anybody wants to know.
const MAX_ELEMENTS: usize = 1_000_000;

/// Replaces a tensor by the texts `value:index[:label]` of its `classes` largest elements, per element of the batch.
///
/// # Errors
/// INVALID_ARG for a type without an order, or for too many elements.
pub(crate) fn classify(
    output: &mut OutputTensor,
    classes: u32,
    batches: bool,
    labels: Option<&[String]>,
) -> Result<(), ServeError> {
    let (batch, dims) = match output.shape.split_first() {
        Some((batch, dims)) if batches => (Some(*batch), dims),
        _ => (None, &output.shape[..]),
    };
    let elements: i64 = dims.iter().product();
    let elements = usize::try_from(elements).unwrap_or(0);
    if elements > MAX_ELEMENTS {
        return Err(ServeError::invalid("classification output tensor too large"));
    }
    let data = &output.data;
    let bytes = match output.datatype {
        DataType::Uint8 => texts(data, elements, classes, labels, u8::from_le_bytes, whole),
        DataType::Uint16 => texts(data, elements, classes, labels, u16::from_le_bytes, whole),
        DataType::Uint32 => texts(data, elements, classes, labels, u32::from_le_bytes, whole),
        DataType::Uint64 => texts(data, elements, classes, labels, u64::from_le_bytes, whole),
        DataType::Int8 => texts(data, elements, classes, labels, i8::from_le_bytes, whole),
        DataType::Int16 => texts(data, elements, classes, labels, i16::from_le_bytes, whole),
        DataType::Int32 => texts(data, elements, classes, labels, i32::from_le_bytes, whole),
        DataType::Int64 => texts(data, elements, classes, labels, i64::from_le_bytes, whole),
        DataType::Fp32 => texts(data, elements, classes, labels, f32::from_le_bytes, six_decimals),
        DataType::Fp64 => texts(data, elements, classes, labels, f64::from_le_bytes, six_decimals),
        DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
            return Err(ServeError::invalid(format!(
                "class result not available for output due to unsupported type '{}'",
                output.datatype
            )));
        }
    }?;
    let count = elements.min(classes as usize) as i64;
    output.shape = batch.into_iter().chain([count]).collect();
    output.datatype = DataType::Bytes;
    output.data = bytes.into();
    Ok(())
}

fn whole<T: std::fmt::Display>(text: &mut String, value: T) {
    let _ = write!(text, "{value}");
}

fn six_decimals<T: Into<f64>>(text: &mut String, value: T) {
    let _ = write!(text, "{:.6}", value.into());
}

fn texts<const N: usize, T: PartialOrd + Copy>(
    data: &[u8],
    elements: usize,
    classes: u32,
    labels: Option<&[String]>,
    read: fn([u8; N]) -> T,
    show: fn(&mut String, T),
) -> Result<Vec<u8>, ServeError> {
    let mut out = Vec::new();
    let mut text = String::new();
    let mut order: Vec<usize> = Vec::new();
    for one in data.as_chunks::<N>().0.chunks(elements.max(1)) {
        let value = |index: usize| read(one[index]);
        // The largest first; of equal ones the first; what is no number last.
        let compare = |a: &usize, b: &usize| {
            let nan = |value: T| value.partial_cmp(&value).is_none();
            value(*b)
                .partial_cmp(&value(*a))
                .unwrap_or_else(|| nan(value(*a)).cmp(&nan(value(*b))))
                .then(a.cmp(b))
        };
        order.clear();
        order.extend(0..one.len());
        let wanted = order.len().min(classes as usize);
        if wanted < order.len() {
            order.select_nth_unstable_by(wanted, compare);
        }
        order[..wanted].sort_unstable_by(compare);
        for &index in &order[..wanted] {
            text.clear();
            show(&mut text, value(index));
            let _ = write!(text, ":{index}");
            if let Some(label) = labels.and_then(|labels| labels.get(index)) {
                let _ = write!(text, ":{label}");
            }
            bytes_tensor::push_element(&mut out, text.as_bytes())
                .map_err(|error| ServeError::new(error.status, error.message))?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn output(datatype: DataType, shape: &[i64], data: Vec<u8>) -> OutputTensor {
        OutputTensor {
            name: "Y".to_owned(),
            datatype,
            shape: shape.iter().copied().collect(),
            data: data.into(),
            binary: true,
            shared_memory: None,
            held: None,
        }
    }

    fn fp32(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn strings(output: &OutputTensor) -> Vec<String> {
        bytes_tensor::elements(&output.data)
            .map(|one| String::from_utf8(one.unwrap().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_best_come_first_per_element_of_the_batch() {
        let labels = ["cat".to_owned(), "dog".to_owned()];
        let mut y = output(DataType::Fp32, &[2, 3], fp32(&[0.5, 2.0, 2.0, -1.0, f32::NAN, 7.25]));
        classify(&mut y, 2, true, Some(&labels)).unwrap();
        assert_eq!(strings(&y), ["2.000000:1:dog", "2.000000:2", "7.250000:2", "-1.000000:0:cat"]);
        assert_eq!((y.shape.as_slice(), y.datatype), ([2, 2].as_slice(), DataType::Bytes));
    }

    #[test]
    fn no_more_classes_than_elements() {
        let mut y = output(DataType::Int16, &[3], vec![1, 0, 3, 0, 2, 0]);
        classify(&mut y, 10, false, None).unwrap();
        assert_eq!(strings(&y), ["3:1", "2:2", "1:0"]);
        assert_eq!(y.shape.as_slice(), [3]);
        let mut none = output(DataType::Fp64, &[0], vec![]);
        classify(&mut none, 1, false, None).unwrap();
        assert_eq!((none.shape.as_slice(), none.data.len()), ([0].as_slice(), 0));
    }

    #[test]
    fn types_without_an_order_are_refused() {
        for datatype in [DataType::Bytes, DataType::Bool, DataType::Fp16, DataType::Bf16] {
            let error = classify(&mut output(datatype, &[1], vec![0]), 1, false, None).unwrap_err();
            assert_eq!(
                error.message,
                format!("class result not available for output due to unsupported type '{datatype}'")
            );
        }
        let mut large = output(DataType::Uint8, &[1_000_001], vec![0; 1_000_001]);
        let error = classify(&mut large, 1, false, None).unwrap_err();
        assert_eq!(error.message, "classification output tensor too large");
    }
}
