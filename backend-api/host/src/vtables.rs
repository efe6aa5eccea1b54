//! The host's side of the wire: how a backend reads requests, answers them and calls services.
//!
//! Every function here is called by foreign code. Null pointers and numbers out of range are answered with an error;
//! what cannot be checked (a handle that was released before) is the backend's duty under the ABI.

use std::ffi::c_void;
use std::sync::Arc;

use bytes::Bytes;
use trireme_abi::{
    Buffer, BufferView, HostRef, HostVtable, HostVtablePtr, InputInfo, LogLevel, MemoryKind, MetricCell,
    MetricDesc, OutputTensor, Parameter, ParameterKind, RequestHandle, RequestItem, RequestVtable,
    RequestVtablePtr, ResponderHandle, ResponderVtable, ResponderVtablePtr, ResponseFlags, SendVerdict,
    Stage, Status as WireStatus, StatusCode, StrView, Writable,
};

use crate::callback::Callback;
use crate::check::Party;
use crate::device::DeviceTensor;
use crate::memory::{Data, Foreign, HostMemory};
use crate::request::{Correlation, Item, Request, Value};
use crate::response::{Output, Responder, Response, Verdict};
use crate::services::HostServices;
use crate::status::Status;
use crate::wire::{read, view};

/// Dimensions of a tensor that a backend sends; more are its error.
pub(crate) const MAX_RANK: usize = 64;
/// Bytes of a name, and entries of a list, that a backend sends; more are its error.
pub(crate) const MAX_LIST: usize = 4096;

pub(crate) struct HostContext {
    pub(crate) services: &'static dyn HostServices,
    /// Set if the backend is checked.
    pub(crate) party: Option<&'static Party>,
}

/// Hands a request over to the backend.
pub(crate) fn into_wire(item: Item) -> RequestItem {
    RequestItem {
        request: Box::into_raw(item.request).cast(),
        responder: Box::into_raw(Box::new(item.responder)).cast(),
    }
}

pub(crate) fn host_ref(context: &'static HostContext) -> HostRef {
    HostRef { context: std::ptr::from_ref(context).cast(), vtable: HostVtablePtr(&HOST) }
}

/// # Safety
/// `request` is a handle from [`into_wire`] that has not been released.
pub(crate) unsafe fn request<'a>(request: *const RequestHandle) -> &'a Request {
    // SAFETY: by this function's contract; handles are boxes of requests.
    unsafe { &*request.cast::<Request>() }
}

/// # Safety
/// `responder` is a handle from [`into_wire`] that has not been released.
pub(crate) unsafe fn responder<'a>(responder: *const ResponderHandle) -> &'a Responder {
    // SAFETY: by this function's contract; handles are boxes of responders.
    unsafe { &*responder.cast::<Responder>() }
}

/// # Safety
/// `out` may be written to if it is not null.
pub(crate) unsafe fn answer<T>(out: *mut T, value: Result<T, Status>) -> WireStatus {
    let value =
        if out.is_null() { Err(Status::invalid("the pointer for the result is null")) } else { value };
    match value {
        Ok(value) => {
            // SAFETY: not null, and by this function's contract.
            unsafe { out.write(value) };
            Status::ok()
        }
        Err(status) => status.into_wire(),
    }
}

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

fn nth_input(request: &Request, index: usize) -> Result<&crate::request::Input, Status> {
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

pub(crate) static RESPONDER: ResponderVtable = ResponderVtable {
    struct_size: size_of::<ResponderVtable>(),
    allocate,
    send,
    on_writable,
    cancelled,
    mark,
    release: responder_release,
};

unsafe extern "C" fn allocate(
    handle: *mut ResponderHandle,
    name: StrView,
    byte_size: usize,
    kind: MemoryKind,
    device: i32,
    out: *mut Buffer,
) -> WireStatus {
    // SAFETY: the ABI demands a live handle and a readable name.
    let (responder, name) = unsafe { (responder(handle), read(name)) };
    let memory = match kind {
        MemoryKind::GPU if responder.sink.reads_device(&name, device) => {
            crate::device::allocate(kind, device, byte_size)
        }
        MemoryKind::GPU | MemoryKind::CPU_PINNED if crate::device::find(device).is_some() => {
            crate::device::allocate(MemoryKind::CPU_PINNED, device, byte_size)
        }
        _ => responder.sink.allocate(&name, byte_size).map(HostMemory::into_buffer),
    };
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, memory) }
}

unsafe extern "C" fn send(
    handle: *mut ResponderHandle,
    response: *mut trireme_abi::Response,
    flags: ResponseFlags,
) -> SendVerdict {
    // SAFETY: the ABI demands a live handle.
    let responder = unsafe { responder(handle) };
    let response = if response.is_null() {
        Ok(Response::default())
    } else {
        // SAFETY: the ABI demands a whole response; its buffers are ours from now on.
        unsafe { take_response(&mut *response) }.and_then(|response| to_reader(responder, response))
    };
    let is_final = flags.0 & ResponseFlags::FINAL.0 != 0;
    send_checked(responder, response, is_final)
}

/// Hands an answer on, or what is wrong with it.
pub(crate) fn send_checked(
    responder: &Responder,
    response: Result<Response, Status>,
    is_final: bool,
) -> SendVerdict {
    let verdict = match response {
        Ok(response) => responder.send(response, is_final),
        // A malformed answer is the backend's fault, and the last one.
        Err(status) => {
            responder.send(Response::error(status), true);
            Verdict::Closed
        }
    };
    match verdict {
        Verdict::Continue => SendVerdict::CONTINUE,
        Verdict::Pause => SendVerdict::PAUSE,
        Verdict::Cancelled => SendVerdict::CANCELLED,
        Verdict::Closed => SendVerdict::CLOSED,
    }
}

/// Copies what lies on a device to the memory of the process, unless who reads it reads that.
fn to_reader(responder: &Responder, mut response: Response) -> Result<Response, Status> {
    for output in &mut response.outputs {
        let there = |tensor: &mut DeviceTensor| !responder.sink.reads_device(&output.name, tensor.device());
        if let Some(tensor) = output.device.take_if(there) {
            let in_output = |status: Status| {
                let message = format!("output '{}': {}", output.name, status.message);
                Status { code: status.code, message }
            };
            output.data = tensor.to_host().map_err(in_output)?;
        }
    }
    Ok(response)
}

/// # Safety
/// `wire` is a whole response whose buffers have not been released.
unsafe fn take_response(wire: &mut trireme_abi::Response) -> Result<Response, Status> {
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
    let shape =
        (0..output.rank).map(|dim| unsafe { *output.shape.add(dim) }).collect::<crate::request::Shape>();
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

unsafe extern "C" fn on_writable(handle: *mut ResponderHandle, callback: Writable) {
    let callback = Callback::new(callback);
    // SAFETY: the ABI demands a live handle.
    let sink = Arc::clone(unsafe { &responder(handle).sink });
    sink.on_writable(Box::new(move || drop(callback)));
}

unsafe extern "C" fn cancelled(handle: *const ResponderHandle) -> *const u32 {
    // SAFETY: the ABI demands a live handle.
    unsafe { responder(handle) }.sink.cancelled().as_ptr()
}

unsafe extern "C" fn mark(handle: *mut ResponderHandle, stage: Stage, time_ns: u64) {
    // SAFETY: the ABI demands a live handle.
    unsafe { responder(handle) }.sink.mark(stage, time_ns);
}

unsafe extern "C" fn responder_release(handle: *mut ResponderHandle) {
    if !handle.is_null() {
        // SAFETY: the ABI demands a live handle, released once.
        drop(unsafe { Box::from_raw(handle.cast::<Responder>()) });
    }
}

pub(crate) static HOST: HostVtable = HostVtable {
    struct_size: size_of::<HostVtable>(),
    request: RequestVtablePtr(&REQUEST),
    responder: ResponderVtablePtr(&RESPONDER),
    log_level,
    log,
    metric,
    allocate: host_allocate,
    now_ns,
    extension,
};

/// # Safety
/// `context` came from [`host_ref`].
pub(crate) unsafe fn services(context: *const c_void) -> &'static dyn HostServices {
    // SAFETY: by this function's contract; it lives until the process ends.
    unsafe { &*context.cast::<HostContext>() }.services
}

unsafe extern "C" fn log_level(context: *const c_void) -> *const u32 {
    // SAFETY: the ABI demands the host's context.
    unsafe { services(context) }.log_level().as_ptr()
}

unsafe extern "C" fn log(context: *const c_void, level: LogLevel, source: StrView, message: StrView) {
    // SAFETY: the ABI demands the host's context and readable texts.
    unsafe { services(context).log(level, &read(source), &read(message)) };
}

unsafe extern "C" fn metric(
    context: *const c_void,
    desc: *const MetricDesc,
    out: *mut MetricCell,
) -> WireStatus {
    if desc.is_null() {
        return Status::invalid("the metric is null").into_wire();
    }
    // SAFETY: not null; the ABI demands a whole description.
    let desc = unsafe { &*desc };
    if desc.label_count > MAX_LIST || (desc.labels.is_null() && desc.label_count > 0) {
        return Status::invalid(format!("a metric with {} labels", desc.label_count)).into_wire();
    }
    // SAFETY: `label_count` pairs of readable texts.
    let texts: Vec<String> =
        (0..desc.label_count * 2).map(|at| unsafe { read(*desc.labels.add(at)) }).collect();
    let labels: Vec<(&str, &str)> =
        texts.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    // SAFETY: the ABI demands the host's context and readable texts.
    let (name, help, services) = unsafe { (read(desc.name), read(desc.help), services(context)) };
    let cell = services.metric(&name, &help, desc.kind, &labels).map(|cell| MetricCell(cell.as_ptr()));
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, cell) }
}

unsafe extern "C" fn host_allocate(
    _context: *const c_void,
    kind: MemoryKind,
    device: i32,
    byte_size: usize,
    out: *mut Buffer,
) -> WireStatus {
    let memory = crate::device::allocate(kind, device, byte_size);
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, memory) }
}

unsafe extern "C" fn now_ns(context: *const c_void) -> u64 {
    // SAFETY: the ABI demands the host's context.
    unsafe { services(context) }.now_ns()
}

unsafe extern "C" fn extension(context: *const c_void, id: StrView) -> *const c_void {
    // SAFETY: the ABI demands the host's context and a readable text.
    let (services, id) = unsafe { (services(context), read(id)) };
    match id.as_str() {
        trireme_abi::BLS_1 => std::ptr::from_ref(&crate::bls::BLS).cast(),
        trireme_abi::DEVICE_1 => std::ptr::from_ref(&crate::device::DEVICE).cast(),
        trireme_abi::FAULT_1 => std::ptr::from_ref(&crate::fault::FAULT).cast(),
        trireme_abi::METRICS_1 => std::ptr::from_ref(&crate::metrics::METRICS).cast(),
        trireme_abi::MODELS_1 => std::ptr::from_ref(&crate::models::MODELS).cast(),
        trireme_abi::OPENAI_1 => std::ptr::from_ref(&crate::openai::OPENAI).cast(),
        id => services.extension(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
