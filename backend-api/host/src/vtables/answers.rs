//! What a backend answers, held against the rules before anybody reads it.

use bytes::Bytes;
use trireme_abi::{OutputTensor, Parameter, ParameterKind, StatusCode};

use super::{MAX_LIST, MAX_RANK};
use crate::device::DeviceTensor;
use crate::memory::{Data, Foreign};
use crate::request::{Shape, Value};
use crate::response::{Output, Response};
use crate::status::Status;
use crate::wire::read;

/// # Safety
/// `wire` is a whole response whose buffers have not been released.
pub(super) unsafe fn take_response(wire: &mut trireme_abi::Response) -> Result<Response, Status> {
    let too_many = wire.output_count > MAX_LIST || wire.parameter_count > MAX_LIST;
    if too_many
        || (wire.outputs.is_null() && wire.output_count > 0)
        || (wire.parameters.is_null() && wire.parameter_count > 0)
    {
        // SAFETY: by this function's contract.
        unsafe { refuse_outputs(wire) };
        return Err(Status::internal(if too_many {
            format!(
                "the backend sent {} outputs and {} parameters; at most {MAX_LIST} of each are allowed",
                wire.output_count, wire.parameter_count
            )
        } else {
            "the backend sent a null pointer for a list that is not empty".to_owned()
        }));
    }
    let mut response = Response::default();
    let mut problem = None;
    for number in 0..wire.output_count {
        // SAFETY: within the list; each element is moved out once.
        let output = unsafe { wire.outputs.add(number).read() };
        // SAFETY: part of a whole response. All buffers are taken, also after a problem, so that none leaks.
        match unsafe { take_output(output) } {
            Ok(output) => response.outputs.push(output),
            Err(status) => problem = problem.or(Some(status)),
        }
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    for number in 0..wire.parameter_count {
        // SAFETY: within the list.
        let parameter = unsafe { &*wire.parameters.add(number) };
        // SAFETY: part of a whole response.
        response.parameters.push(unsafe { take_parameter(parameter)? });
    }
    if wire.code != StatusCode::OK {
        // SAFETY: part of a whole response.
        let message = unsafe { read(wire.message) };
        return Ok(Response::error(Status { code: wire.code, message }));
    }
    Ok(response)
}

/// Gives back the memory of an answer that nobody reads.
///
/// # Safety
/// `wire` is a whole response whose buffers have not been released; this is their last use.
pub(crate) unsafe fn refuse_outputs(wire: &trireme_abi::Response) {
    if wire.outputs.is_null() {
        return;
    }
    for number in 0..wire.output_count {
        // SAFETY: within the list; each buffer is taken once and given back.
        drop(unsafe { Foreign::new(wire.outputs.add(number).read().buffer) });
    }
}

/// # Safety
/// `output` is whole and its buffer has not been released.
unsafe fn take_output(output: OutputTensor) -> Result<Output, Status> {
    // SAFETY: moved out of the wire; dropping releases it.
    let buffer = unsafe { Foreign::new(output.buffer) };
    if output.name.len > MAX_LIST {
        return Err(Status::internal(format!(
            "the backend sent an output name of {} bytes",
            output.name.len
        )));
    }
    // SAFETY: by this function's contract.
    let name = unsafe { read(output.name) };
    let refuse = |what: String| Err(Status::internal(format!("the backend sent output '{name}' {what}")));
    if output.rank > MAX_RANK || (output.shape.is_null() && output.rank > 0) {
        return refuse(format!("with {} dimensions; at most {MAX_RANK} are allowed", output.rank));
    }
    // SAFETY: `rank` dimensions are readable, and the rank was looked at.
    let shape = (0..output.rank).map(|dim| unsafe { *output.shape.add(dim) }).collect::<Shape>();
    let data = buffer.into_data()?;
    let Some(elements) = element_count(&shape) else {
        return refuse(format!("with the impossible shape {shape:?}"));
    };
    let expected = element_size(output.dtype).map(|size| elements.checked_mul(size));
    let (data, device) = match data {
        Data::Host(bytes) => (bytes, None),
        Data::Device(tensor) if expected.is_some() => (Bytes::new(), Some(tensor)),
        // The framing of BYTES is looked at here.
        Data::Device(tensor) => (tensor.to_host()?, None),
    };
    let length = device.as_ref().map_or(data.len(), DeviceTensor::byte_size);
    match expected {
        Some(Some(expected)) if expected == length => {}
        Some(_) => return refuse(format!("with {length} bytes, which do not fit its shape {shape:?}")),
        None if output.dtype == trireme_abi::DType::BYTES => {
            if !framed(&data, elements) {
                return refuse(format!("whose {} bytes do not hold {elements} elements", data.len()));
            }
        }
        None => return refuse(format!("with the unknown data type number {}", output.dtype.0)),
    }
    Ok(Output { name, dtype: output.dtype, shape, data, device })
}

pub(crate) fn element_count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?))
}

/// In bytes; none for BYTES and for what this version does not know.
pub(crate) fn element_size(dtype: trireme_abi::DType) -> Option<usize> {
    match dtype.0 {
        1 | 2 | 6 => Some(1),
        3 | 7 | 10 | 14 => Some(2),
        4 | 8 | 11 => Some(4),
        5 | 9 | 12 => Some(8),
        _ => None,
    }
}

/// Whether `data` is `elements` times a little-endian length and that many bytes.
fn framed(mut data: &[u8], elements: usize) -> bool {
    for _ in 0..elements {
        let Some((length, rest)) = data.split_first_chunk::<4>() else { return false };
        let Some(rest) = rest.get(u32::from_le_bytes(*length) as usize..) else { return false };
        data = rest;
    }
    data.is_empty()
}

/// # Safety
/// `parameter` is whole.
unsafe fn take_parameter(parameter: &Parameter) -> Result<(String, Value), Status> {
    // SAFETY: by this function's contract.
    let name = unsafe { read(parameter.name) };
    let value = match parameter.kind {
        ParameterKind::BOOL => Value::Bool(parameter.int_value != 0),
        ParameterKind::INT => Value::Int(parameter.int_value),
        ParameterKind::DOUBLE => Value::Double(parameter.double_value),
        // SAFETY: by this function's contract.
        ParameterKind::STRING => Value::String(unsafe { read(parameter.string_value) }),
        other => {
            return Err(Status::internal(format!(
                "the backend sent parameter '{name}' of unknown kind {}",
                other.0
            )));
        }
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use trireme_abi::{Buffer, MemoryKind};

    use super::*;
    use crate::wire::view;

    /// The memory of an output is not looked at here: it is given back, with its own event, as nobody waited for it.
    unsafe extern "C" fn note(owner: *mut c_void, done_event: u64) {
        // SAFETY: the list of the test, which lives longer.
        unsafe { &mut *owner.cast::<Vec<u64>>() }.push(done_event);
    }

    #[test]
    fn answers_that_are_refused_give_all_their_memory_back() {
        let text = || view("");
        for (outputs, parameters) in [(2, 1), (2, MAX_LIST + 1), (MAX_LIST + 1, 0)] {
            let mut released: Vec<u64> = Vec::new();
            let owner = std::ptr::from_mut(&mut released).cast();
            let output = |_| OutputTensor {
                name: text(),
                dtype: trireme_abi::DType::FP32,
                reserved: 0,
                shape: std::ptr::null(),
                rank: 0,
                buffer: Buffer {
                    data: owner,
                    len: 4,
                    kind: MemoryKind::GPU,
                    device: 0,
                    ready_event: 3,
                    fd: -1,
                    reserved: 0,
                    fd_offset: 0,
                    owner,
                    release: Some(note),
                },
            };
            let mut list: Vec<OutputTensor> = (0..outputs).map(output).collect();
            let mut wire = trireme_abi::Response {
                outputs: list.as_mut_ptr(),
                output_count: outputs,
                parameters: std::ptr::null(),
                parameter_count: parameters,
                code: StatusCode::OK,
                reserved: 0,
                message: text(),
            };
            // SAFETY: a whole response as far as it is read: its lists cannot be.
            assert!(unsafe { take_response(&mut wire) }.is_err());
            assert_eq!(released, vec![3u64; outputs], "{outputs} outputs, {parameters} parameters");
        }
    }
}
