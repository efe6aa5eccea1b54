//! What a backend reads of a request.

use bytes::Bytes;
use trireme_abi::{
    Buffer, BufferView, InputInfo, MemoryKind, Parameter, ParameterKind, RequestHandle, RequestVtable,
    Status as WireStatus, StrView,
};

use super::{answer, request};
use crate::device::DeviceTensor;
use crate::request::{Correlation, Input, Request, Value};
use crate::status::Status;
use crate::wire::view;

pub(crate) static REQUEST: RequestVtable = RequestVtable {
    struct_size: size_of::<RequestVtable>(),
    id: request_id,
    input_count,
    input,
    input_buffer,
    gather,
    parameter_count,
    parameter,
    output_wanted,
    batch_size,
    priority,
    deadline_ns,
    correlation_id,
    correlation_text,
    trace_parent,
    release: request_release,
    release_after: request_release_after,
};

unsafe extern "C" fn request_id(handle: *const RequestHandle) -> StrView {
    // SAFETY: the ABI demands a live handle.
    view(unsafe { &request(handle).id })
}

unsafe extern "C" fn input_count(handle: *const RequestHandle) -> usize {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.inputs.len()
}

fn nth_input(request: &Request, index: usize) -> Result<&Input, Status> {
    let count = request.inputs.len();
    let error = || Status::invalid(format!("input number {index} is out of range: the request has {count}"));
    request.inputs.get(index).ok_or_else(error)
}

unsafe extern "C" fn input(handle: *const RequestHandle, index: usize, out: *mut InputInfo) -> WireStatus {
    // SAFETY: the ABI demands a live handle.
    let request = unsafe { request(handle) };
    let info = nth_input(request, index).map(|input| InputInfo {
        name: request.names.get(usize::from(input.index)).map_or_else(|| view(""), |name| view(name)),
        dtype: input.dtype,
        buffer_count: input.buffers.len() as u32 + u32::from(input.device.is_some()),
        shape: input.shape.as_ptr(),
        rank: input.shape.len(),
        byte_size: input.byte_size(),
    });
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, info) }
}

unsafe extern "C" fn input_buffer(
    handle: *const RequestHandle,
    index: usize,
    buffer: usize,
    out: *mut BufferView,
) -> WireStatus {
    // SAFETY: the ABI demands a live handle.
    let found = nth_input(unsafe { request(handle) }, index).and_then(|input| {
        let (pieces, device) = (input.buffers.iter().map(view_of), input.device.as_ref());
        let count = pieces.len() + usize::from(device.is_some());
        let error =
            || Status::invalid(format!("buffer number {buffer} is out of range: the input has {count}"));
        pieces.chain(device.map(DeviceTensor::view)).nth(buffer).ok_or_else(error)
    });
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, found) }
}

fn view_of(bytes: &Bytes) -> BufferView {
    BufferView {
        data: bytes.as_ptr().cast(),
        len: bytes.len(),
        kind: MemoryKind::CPU,
        device: 0,
        ready_event: 0,
        fd: -1,
        reserved: 0,
        fd_offset: 0,
    }
}

unsafe extern "C" fn gather(
    handle: *const RequestHandle,
    index: usize,
    kind: MemoryKind,
    device: i32,
    out: *mut Buffer,
) -> WireStatus {
    // SAFETY: the ABI demands a live handle.
    let found = nth_input(unsafe { request(handle) }, index);
    let found = found.and_then(|input| crate::device::gather(input, kind, device));
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, found) }
}

unsafe extern "C" fn parameter_count(handle: *const RequestHandle) -> usize {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.parameters.len()
}

unsafe extern "C" fn parameter(
    handle: *const RequestHandle,
    index: usize,
    out: *mut Parameter,
) -> WireStatus {
    // SAFETY: the ABI demands a live handle.
    let request = unsafe { request(handle) };
    let count = request.parameters.len();
    let found = request.parameters.get(index).map(|(name, value)| wire_parameter(name, value));
    let error =
        || Status::invalid(format!("parameter number {index} is out of range: the request has {count}"));
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, found.ok_or_else(error)) }
}

fn wire_parameter(name: &str, value: &Value) -> Parameter {
    let mut wire = Parameter {
        name: view(name),
        kind: ParameterKind::STRING,
        reserved: 0,
        int_value: 0,
        double_value: 0.0,
        string_value: view(""),
    };
    match value {
        Value::Bool(value) => (wire.kind, wire.int_value) = (ParameterKind::BOOL, i64::from(*value)),
        Value::Int(value) => (wire.kind, wire.int_value) = (ParameterKind::INT, *value),
        Value::Double(value) => (wire.kind, wire.double_value) = (ParameterKind::DOUBLE, *value),
        Value::String(value) => wire.string_value = view(value),
    }
    wire
}

unsafe extern "C" fn output_wanted(handle: *const RequestHandle, output: usize) -> bool {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.wanted.contains(output)
}

unsafe extern "C" fn batch_size(handle: *const RequestHandle) -> u32 {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.batch_size
}

unsafe extern "C" fn priority(handle: *const RequestHandle) -> u64 {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.priority
}

unsafe extern "C" fn deadline_ns(handle: *const RequestHandle) -> u64 {
    // SAFETY: the ABI demands a live handle.
    unsafe { request(handle) }.deadline_ns
}

unsafe extern "C" fn correlation_id(handle: *const RequestHandle) -> u64 {
    // SAFETY: the ABI demands a live handle.
    match unsafe { &request(handle).correlation } {
        Correlation::Number(number) => *number,
        _ => 0,
    }
}

unsafe extern "C" fn correlation_text(handle: *const RequestHandle) -> StrView {
    // SAFETY: the ABI demands a live handle.
    match unsafe { &request(handle).correlation } {
        Correlation::Text(text) => view(text),
        _ => view(""),
    }
}

unsafe extern "C" fn trace_parent(handle: *const RequestHandle) -> StrView {
    // SAFETY: the ABI demands a live handle.
    view(unsafe { &request(handle).trace_parent })
}

unsafe extern "C" fn request_release(handle: *mut RequestHandle) {
    if !handle.is_null() {
        // SAFETY: the ABI demands a live handle, released once.
        drop(unsafe { Box::from_raw(handle.cast::<Request>()) });
    }
}

unsafe extern "C" fn request_release_after(handle: *mut RequestHandle, done_event: u64) {
    // SAFETY: the ABI demands a live handle, released once, and an event that lives until the call returns.
    unsafe {
        note_done(handle, done_event);
        request_release(handle);
    }
}

/// # Safety
/// `handle` is live or null, the event lives until the call returns.
pub(crate) unsafe fn note_done(handle: *const RequestHandle, done_event: u64) {
    if !handle.is_null() && done_event != 0 {
        // SAFETY: by this function's contract.
        crate::device::note_done(unsafe { request(handle) }, done_event);
    }
}
