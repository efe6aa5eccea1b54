//! What a backend calls of its host.

use std::ffi::c_void;

use trireme_abi::{
    Buffer, HostVtable, LogLevel, MemoryKind, MetricCell, MetricDesc, RequestVtablePtr, ResponderVtablePtr,
    Status as WireStatus, StrView,
};

use super::{HostContext, MAX_LIST, REQUEST, RESPONDER, answer};
use crate::services::HostServices;
use crate::status::Status;
use crate::wire::read;

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
