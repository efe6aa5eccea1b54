//! Whether two answers are the same.

use crate::element::{floats, is_float, name_of};
use crate::replies::{Answer, Output};

/// How far floats may part when a request is computed in other company or in other pieces, relative to the larger one.
const TOLERANCE: f64 = 1e-2;

/// The first difference of two lists of answers. Floats may differ a little: sums have no order.
pub(crate) fn difference(left: &[Answer], right: &[Answer]) -> Option<String> {
    if left.len() != right.len() {
        return Some(format!("{} answers and {}", left.len(), right.len()));
    }
    left.iter().zip(right).find_map(|(left, right)| {
        if left.error.as_ref().map(|error| error.0) != right.error.as_ref().map(|error| error.0) {
            return Some(format!("{} and {}", told(left), told(right)));
        }
        if left.outputs.len() != right.outputs.len() {
            return Some(format!("{} outputs and {}", left.outputs.len(), right.outputs.len()));
        }
        left.outputs.iter().find_map(|output| {
            match right.outputs.iter().find(|other| other.name == output.name) {
                None => Some(format!("output '{}' is in one of them only", output.name)),
                Some(other) => of_outputs(output, other),
            }
        })
    })
}

fn told(answer: &Answer) -> String {
    match &answer.error {
        Some((code, message)) => format!("the error {} '{message}'", crate::declared::code_name(*code)),
        None => "an answer".to_owned(),
    }
}

/// What parts two tensors of one name.
pub(crate) fn of_outputs(left: &Output, right: &Output) -> Option<String> {
    let name = &left.name;
    if (left.dtype, &left.shape) != (right.dtype, &right.shape) {
        return Some(format!(
            "output '{name}' is {} {:?} and {} {:?}",
            name_of(left.dtype),
            left.shape,
            name_of(right.dtype),
            right.shape
        ));
    }
    if left.data == right.data {
        return None;
    }
    if !is_float(left.dtype) {
        let at = left.data.iter().zip(&right.data).position(|(left, right)| left != right).unwrap_or(0);
        return Some(format!("output '{name}' differs at byte {at}"));
    }
    let (left, right) = (floats(left.dtype, &left.data), floats(right.dtype, &right.data));
    let near = |(left, right): (&f64, &f64)| {
        left == right
            || (left.is_nan() && right.is_nan())
            || (left - right).abs() <= TOLERANCE * left.abs().max(right.abs()).max(1e-3)
    };
    let at = left.iter().zip(&right).position(|pair| !near(pair))?;
    Some(format!("output '{name}' has {} and {} at element {at}", left[at], right[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_host::abi::DType;

    fn answer(dtype: DType, data: Vec<u8>) -> Answer {
        let shape = vec![data.len() as i64 / 4];
        Answer { outputs: vec![Output { name: "Y".into(), dtype, shape, data }], ..Answer::default() }
    }

    #[test]
    fn floats_may_differ_a_little_and_nothing_else() {
        let float = |value: f32| [answer(DType::FP32, value.to_le_bytes().to_vec())];
        assert_eq!(difference(&float(1.0), &float(1.001)), None);
        assert_eq!(difference(&float(f32::NAN), &float(f32::NAN)), None);
        assert_eq!(
            difference(&float(1.0), &float(2.0)),
            Some("output 'Y' has 1 and 2 at element 0".to_owned())
        );
        let whole = |value: i32| [answer(DType::INT32, value.to_le_bytes().to_vec())];
        assert_eq!(difference(&whole(1), &whole(2)), Some("output 'Y' differs at byte 0".to_owned()));
        assert_eq!(difference(&whole(1), &[]), Some("1 answers and 0".to_owned()));
        assert!(difference(&float(1.0), &whole(1)).is_some());
    }
}
