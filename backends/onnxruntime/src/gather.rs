//! From requests to an input of a run.

use std::borrow::Cow;

use half::{bf16, f16};
use ort::memory::Allocator;
use ort::session::SessionInputValue;
use ort::value::{PrimitiveTensorElementType, Shape, Tensor as Value, TensorRef};
use trireme_sdk::{DataType, Element, Error, Input, Request, Result};

use crate::signature::{Absent, Joined, LayoutInput};

/// An input for the whole batch. That of a single request is looked at where it is, if it is in one piece and aligned as
/// ONNX Runtime aligns its own. `None`: no request has it, and the model has a value for it.
pub(crate) fn input<'a>(
    to: &LayoutInput,
    batch: &'a [Request],
    batches: bool,
) -> Result<Option<SessionInputValue<'a>>> {
    let tensor = &to.tensor;
    let inputs: Vec<Input<'a>> =
        batch.iter().filter_map(|request| request.optional_input(&tensor.name)).collect();
    // Who leaves it out does not share a batch with who does not.
    if inputs.len() < batch.len() {
        return match to.absent {
            Absent::Default if inputs.is_empty() => Ok(None),
            _ => Err(Error::invalid(format!(
                "input '{}' is missing, and the model has no value for it",
                tensor.name
            ))),
        };
    }
    value(to, &inputs, batches).map(Some)
}

fn value<'a>(to: &LayoutInput, inputs: &[Input<'a>], batches: bool) -> Result<SessionInputValue<'a>> {
    let tensor = &to.tensor;
    if let Some(other) = inputs.iter().find(|input| input.data_type() != tensor.data_type) {
        return Err(Error::invalid(format!(
            "input '{}' is {}, but {} in the model",
            tensor.name,
            other.data_type().name(),
            tensor.data_type.name()
        )));
    }
    let shape = match to.joined {
        Joined::Flat => vec![inputs.iter().map(|input| input.element_count() as i64).sum()],
        Joined::Rows => rows(to, inputs, batches)?,
        Joined::Parts => rows(to, inputs, true)?,
    };
    match tensor.data_type {
        DataType::Bool => values::<bool>(shape, inputs),
        DataType::Uint8 => values::<u8>(shape, inputs),
        DataType::Uint16 => values::<u16>(shape, inputs),
        DataType::Uint32 => values::<u32>(shape, inputs),
        DataType::Uint64 => values::<u64>(shape, inputs),
        DataType::Int8 => values::<i8>(shape, inputs),
        DataType::Int16 => values::<i16>(shape, inputs),
        DataType::Int32 => values::<i32>(shape, inputs),
        DataType::Int64 => values::<i64>(shape, inputs),
        DataType::Fp32 => values::<f32>(shape, inputs),
        DataType::Fp64 => values::<f64>(shape, inputs),
        DataType::Fp16 => halves(shape, inputs, f16::from_le_bytes),
        DataType::Bf16 => halves(shape, inputs, bf16::from_le_bytes),
        DataType::Bytes => texts(shape, inputs),
    }
}

/// The shape of the inputs one below the other.
fn rows(to: &LayoutInput, inputs: &[Input<'_>], batches: bool) -> Result<Vec<i64>> {
    let (name, rank) = (&to.tensor.name, to.tensor.dims.len());
    // Parts of a batch may be empty, all but the first.
    let Some(first) = inputs.first() else { return Ok(Vec::new()) };
    let mut shape = first.shape().to_vec();
    if shape.len() == rank + 1 && shape.last() == Some(&1) {
        // A configuration cannot say that there is no dimension beside that of the batch.
        shape.pop();
    }
    if batches && let Some(rows) = shape.first_mut() {
        let other = inputs.iter().find(|input| input.shape().get(1..) != first.shape().get(1..));
        if let Some(other) = other {
            let (first, other) = (first.shape(), other.shape());
            return Err(Error::internal(format!(
                "a batch mixes shapes of input '{name}': {first:?} and {other:?}"
            )));
        }
        *rows = inputs.iter().filter_map(|input| input.shape().first()).sum();
    }
    Ok(shape)
}

fn wrong(error: ort::Error) -> Error {
    Error::invalid(format!("ONNX Runtime: {error}"))
}

/// Where memory begins that ONNX Runtime allocates itself. Its kernels sum in another order on memory that begins elsewhere, so
/// that only memory which begins here gives the same bits whichever way a request has come.
const ALIGNMENT: usize = 64;

fn values<'a, T: Element + PrimitiveTensorElementType + std::fmt::Debug>(
    shape: Vec<i64>,
    inputs: &[Input<'a>],
) -> Result<SessionInputValue<'a>> {
    if let [input] = inputs
        && let Cow::Borrowed(values) = input.values::<T>()?
        && values.as_ptr().addr().is_multiple_of(ALIGNMENT)
    {
        return Ok(TensorRef::from_array_view((Shape::new(shape), values)).map_err(wrong)?.into());
    }
    filled(shape, inputs, |input, place| {
        place.copy_from_slice(&input.values::<T>()?);
        Ok(())
    })
}

/// A tensor in memory of ONNX Runtime's own, into which each input is copied behind the one before.
fn filled<'a, T: PrimitiveTensorElementType + std::fmt::Debug>(
    shape: Vec<i64>,
    inputs: &[Input<'a>],
    copy: impl Fn(&Input<'a>, &mut [T]) -> Result<()>,
) -> Result<SessionInputValue<'a>> {
    let mut tensor = Value::<T>::new(&Allocator::default(), Shape::new(shape)).map_err(wrong)?;
    let mut left = tensor.extract_tensor_mut().1;
    for input in inputs {
        let (own, others) = left.split_at_mut_checked(input.element_count()).ok_or_else(|| {
            Error::internal(format!("input '{}' has more elements than its shape", input.name()))
        })?;
        copy(input, own)?;
        left = others;
    }
    Ok(tensor.into())
}

fn halves<'a, T: PrimitiveTensorElementType + std::fmt::Debug>(
    shape: Vec<i64>,
    inputs: &[Input<'a>],
    read: impl Fn([u8; 2]) -> T,
) -> Result<SessionInputValue<'a>> {
    filled(shape, inputs, |input, place| {
        let data = input.data()?;
        place.iter_mut().zip(data.as_chunks::<2>().0).for_each(|(to, bytes)| *to = read(*bytes));
        Ok(())
    })
}

fn texts<'a>(shape: Vec<i64>, inputs: &[Input<'a>]) -> Result<SessionInputValue<'a>> {
    let texts: Vec<String> = inputs.iter().map(Input::texts).collect::<Result<Vec<_>>>()?.concat();
    if let (Some(input), true) = (inputs.first(), texts.iter().any(|text| text.contains('\0'))) {
        return Err(Error::invalid(format!("input '{}' holds an element with a NUL byte", input.name())));
    }
    Ok(Value::from_string_array((Shape::new(shape), texts.as_slice())).map_err(wrong)?.into())
}
