//! How a backend answers a request.

use std::sync::Arc;

use trireme_abi::{
    Buffer, MemoryKind, ResponderHandle, ResponderVtable, ResponseFlags, SendVerdict, Stage,
    Status as WireStatus, StrView, Writable,
};

use super::{answer, responder, take_response};
use crate::callback::Callback;
use crate::device::DeviceTensor;
use crate::memory::HostMemory;
use crate::response::{Responder, Response, Verdict};
use crate::status::Status;
use crate::wire::read;

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
