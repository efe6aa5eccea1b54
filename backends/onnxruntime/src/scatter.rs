//! From an output of a run to the answers.

use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType};
use trireme_sdk::{DataType, Element, Error, Response, Result};

use crate::signature::LayoutOutput;

/// What of an output is whose.
pub(crate) enum Cut<'a> {
    /// All of it belongs to the only request.
    Whole,
    /// So many rows of the first dimension belong to each request.
    Rows(&'a [usize]),
    /// So many elements belong to each request; the server knows their shape.
    Elements(Vec<usize>),
}

/// Adds an output to the answers that want it.
pub(crate) fn output(
    output: &LayoutOutput,
    value: &DynValue,
    cut: &Cut<'_>,
    wanted: &[bool],
    answers: Vec<Response>,
) -> Result<Vec<Response>> {
    let to = Scatter { output, value, cut, wanted };
    match output.tensor.data_type {
        DataType::Bool => to.plain::<bool>(answers),
        DataType::Uint8 => to.plain::<u8>(answers),
        DataType::Uint16 => to.plain::<u16>(answers),
        DataType::Uint32 => to.plain::<u32>(answers),
        DataType::Uint64 => to.plain::<u64>(answers),
        DataType::Int8 => to.plain::<i8>(answers),
        DataType::Int16 => to.plain::<i16>(answers),
        DataType::Int32 => to.plain::<i32>(answers),
        DataType::Int64 => to.plain::<i64>(answers),
        DataType::Fp32 => to.plain::<f32>(answers),
        DataType::Fp64 => to.plain::<f64>(answers),
        DataType::Fp16 => to.halves::<f16>(answers, |value| value.to_le_bytes()),
        DataType::Bf16 => to.halves::<bf16>(answers, |value| value.to_le_bytes()),
        DataType::Bytes => to.texts(answers),
    }
}

struct Scatter<'a> {
    output: &'a LayoutOutput,
    value: &'a DynValue,
    cut: &'a Cut<'a>,
    wanted: &'a [bool],
}

impl Scatter<'_> {
    fn failed(&self, error: &ort::Error) -> Error {
        Error::internal(format!("ONNX Runtime, output '{}': {error}", self.output.tensor.name))
    }

    /// Calls `add` with each answer that wants its part: the shape of that, and which elements it has.
    fn parts<T>(
        &self,
        shape: &[i64],
        elements: &[T],
        answers: Vec<Response>,
        mut add: impl FnMut(Response, &str, &[i64], &[T]) -> Result<Response>,
    ) -> Result<Vec<Response>> {
        let name = self.output.tensor.name.as_str();
        let (row, rest, counts) = match self.cut {
            Cut::Whole => {
                // A configuration cannot say that there is no dimension.
                let shape = if shape.is_empty() { &[1] } else { shape };
                return answers.into_iter().map(|answer| add(answer, name, shape, elements)).collect();
            }
            Cut::Rows(rows) => {
                let total: usize = rows.iter().sum();
                let (first, rest) = shape.split_first().unwrap_or((&0, &[]));
                if usize::try_from(*first) != Ok(total) {
                    return Err(Error::internal(format!(
                        "output '{name}' has the shape {shape:?}, but the batch has {total} rows: the model does not \
                         keep the batch dimension, use max_batch_size 0"
                    )));
                }
                // As a configuration shows it.
                let rest = if rest.is_empty() { vec![1] } else { rest.to_vec() };
                (elements.len().checked_div(total).unwrap_or(0), rest, *rows)
            }
            Cut::Elements(counts) => {
                let total: usize = counts.iter().sum();
                if elements.len() != total {
                    return Err(Error::internal(format!(
                        "output '{name}' has {} elements, but the input by which batch_output cuts it has {total}",
                        elements.len()
                    )));
                }
                (1, Vec::new(), counts.as_slice())
            }
        };
        let mut left = elements;
        let mut split = Vec::with_capacity(answers.len());
        for ((answer, count), wanted) in answers.into_iter().zip(counts).zip(self.wanted) {
            let (own, others) = left.split_at(count * row);
            left = others;
            let shape: Vec<i64> = std::iter::once(*count as i64).chain(rest.iter().copied()).collect();
            split.push(if *wanted { add(answer, name, &shape, own)? } else { answer });
        }
        Ok(split)
    }

    fn plain<T: Element + PrimitiveTensorElementType>(
        &self,
        answers: Vec<Response>,
    ) -> Result<Vec<Response>> {
        let (shape, elements) = self.value.try_extract_tensor::<T>().map_err(|error| self.failed(&error))?;
        // Copied: the memory is the session's.
        self.parts(shape, elements, answers, |answer, name, shape, own| {
            answer.tensor(name, shape, own.to_vec())
        })
    }

    fn halves<T: PrimitiveTensorElementType + Copy>(
        &self,
        answers: Vec<Response>,
        write: impl Fn(T) -> [u8; 2],
    ) -> Result<Vec<Response>> {
        let (shape, elements) = self.value.try_extract_tensor::<T>().map_err(|error| self.failed(&error))?;
        self.parts(shape, elements, answers, |answer, name, shape, own| {
            answer.raw(
                name,
                self.output.tensor.data_type,
                shape,
                own.iter().flat_map(|value| write(*value)).collect(),
            )
        })
    }

    fn texts(&self, answers: Vec<Response>) -> Result<Vec<Response>> {
        let (shape, elements) = self.value.try_extract_strings().map_err(|error| self.failed(&error))?;
        self.parts(shape, &elements, answers, |answer, name, shape, own| answer.bytes(name, shape, own))
    }
}
