//! How a checked backend answers.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use trireme_abi::{
    Buffer, MemoryKind, OutputTensor, ResponderHandle, ResponderVtable, Response, ResponseFlags, SendVerdict,
    Stage, Status as WireStatus, StatusCode, StrView, Writable,
};

use super::registry::{Entry, Kind, Real, find, take};
use super::requests::{dead, look_at_result};
use super::{Rule, buffers, report};
use crate::vtables::{MAX_LIST, MAX_RANK, RESPONDER as PLAIN, element_count, element_size, refuse_outputs};

pub(crate) static RESPONDER: ResponderVtable = ResponderVtable {
    struct_size: size_of::<ResponderVtable>(),
    allocate,
    send,
    on_writable,
    cancelled,
    mark,
    release,
};

/// The handle of an entry that was found as a responder.
pub(super) fn handle(entry: &Entry) -> *mut ResponderHandle {
    match entry.real {
        Real::Responder(handle) => handle,
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn allocate(
    responder: *mut ResponderHandle,
    name: StrView,
    byte_size: usize,
    kind: MemoryKind,
    device: i32,
    out: *mut Buffer,
) -> WireStatus {
    let call = "ResponderVtable.allocate";
    let Some(entry) = find(responder, Kind::Responder, call) else { return dead() };
    let _turn = entry.turn(call);
    look_at_result(out, &entry, call);
    // SAFETY: the entry keeps the handle alive; the name is the backend's promise.
    unsafe {
        look_at_text(name, &entry, "the name of an output");
        let status = (PLAIN.allocate)(handle(&entry), name, byte_size, kind, device, out);
        buffers::watch_result(status, out, entry.party, true)
    }
}

unsafe extern "C" fn send(
    responder: *mut ResponderHandle,
    response: *mut Response,
    flags: ResponseFlags,
) -> SendVerdict {
    let call = "ResponderVtable.send";
    let Some(entry) = find(responder, Kind::Responder, call) else {
        // SAFETY: the buffers move to the host whatever the verdict, so they are given back here.
        unsafe {
            if let Some(response) = response.as_ref() {
                refuse_outputs(response);
            }
        }
        return SendVerdict::CLOSED;
    };
    let _turn = entry.turn(call);
    // SAFETY: the ABI demands a whole response, or null.
    let code = unsafe { response.as_ref() }.map_or(StatusCode::OK, |response| response.code);
    let last = flags.0 & ResponseFlags::FINAL.0 != 0 || code != StatusCode::OK;
    before_sending(&entry, last, call);
    // SAFETY: the ABI demands a whole response, or null; the entry keeps the handle alive.
    let verdict = unsafe {
        if let Some(response) = response.as_mut() {
            look_at_response(response, &entry);
        }
        (PLAIN.send)(handle(&entry), response, flags)
    };
    after_sending(&entry, last, verdict);
    verdict
}

/// What may be said of any answer, tensors or not.
pub(super) fn before_sending(entry: &Entry, last: bool, call: &str) {
    if entry.finished.load(SeqCst) {
        report(Rule::ResponseAfterFinal, entry.party, format!("{call} was called after the final response"));
    } else if !last && entry.paused.load(SeqCst) {
        report(
            Rule::SentWhilePaused,
            entry.party,
            format!("{call} was called while the responder was paused"),
        );
    }
}

pub(super) fn after_sending(entry: &Entry, last: bool, verdict: SendVerdict) {
    if last {
        entry.finished.store(true, SeqCst);
    } else if verdict == SendVerdict::PAUSE {
        entry.paused.store(true, SeqCst);
    }
}

/// # Safety
/// `response` is whole.
unsafe fn look_at_response(response: &mut Response, entry: &Entry) {
    // SAFETY: by this function's contract.
    unsafe { look_at_text(response.message, entry, "the message of a response") };
    // Lists that cannot be are refused by the host, with a sentence.
    if response.outputs.is_null() || response.output_count > MAX_LIST {
        return;
    }
    for number in 0..response.output_count {
        // SAFETY: within the list.
        let output = unsafe { &mut *response.outputs.add(number) };
        buffers::hand_over(&mut output.buffer, entry.party, "ResponderVtable.send");
        // SAFETY: part of a whole response.
        unsafe {
            look_at_text(output.name, entry, "the name of an output");
            look_at_size(output, entry);
        }
    }
}

/// # Safety
/// `output` is whole.
unsafe fn look_at_size(output: &OutputTensor, entry: &Entry) {
    if output.rank > MAX_RANK || (output.shape.is_null() && output.rank > 0) {
        return;
    }
    // SAFETY: `rank` dimensions are readable.
    let shape: Vec<i64> = (0..output.rank).map(|dim| unsafe { *output.shape.add(dim) }).collect();
    // BYTES have no size of their own; the host looks at their framing.
    let Some(size) = element_size(output.dtype) else { return };
    let expected = element_count(&shape).and_then(|count| count.checked_mul(size));
    if expected != Some(output.buffer.len) {
        let what = format!(
            "an output has {} bytes, its shape {shape:?} and type {} declare {}",
            output.buffer.len,
            output.dtype.0,
            expected.map_or_else(|| "an impossible number".to_owned(), |bytes| bytes.to_string()),
        );
        report(Rule::OutputSize, entry.party, what);
    }
}

/// # Safety
/// `text` is null or names readable bytes.
unsafe fn look_at_text(text: StrView, entry: &Entry, what: &str) {
    if text.data.is_null() || text.len == 0 || text.len > MAX_LIST {
        return;
    }
    // SAFETY: by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(text.data, text.len) };
    if let Err(error) = std::str::from_utf8(bytes) {
        report(Rule::TextNotUtf8, entry.party, format!("{what}: {error}"));
    }
}

/// Ends the pause before the backend hears of it.
struct Wait {
    paused: Arc<AtomicBool>,
    callback: Writable,
}

unsafe extern "C" fn writable(user: *mut c_void) {
    // SAFETY: the box that `on_writable` made; the host calls back once.
    let wait = unsafe { Box::from_raw(user.cast::<Wait>()) };
    wait.paused.store(false, SeqCst);
    // SAFETY: called once, with the pointer that came with it.
    unsafe { (wait.callback.call)(wait.callback.user) };
}

unsafe extern "C" fn on_writable(responder: *mut ResponderHandle, callback: Writable) {
    let call = "ResponderVtable.on_writable";
    let Some(entry) = find(responder, Kind::Responder, call) else {
        // A callback is owed, so that what it owns is not lost.
        // SAFETY: called once, with the pointer that came with it.
        return unsafe { (callback.call)(callback.user) };
    };
    // The turn ends before the callback, which may send.
    drop(entry.turn(call));
    let user = Box::into_raw(Box::new(Wait { paused: Arc::clone(&entry.paused), callback })).cast();
    // SAFETY: the entry keeps the handle alive.
    unsafe { (PLAIN.on_writable)(handle(&entry), Writable { call: writable, user }) };
}

unsafe extern "C" fn cancelled(responder: *const ResponderHandle) -> *const u32 {
    // Who asks for a responder that is gone hears that nobody waits.
    static GONE: AtomicU32 = AtomicU32::new(1);
    match find(responder, Kind::Responder, "ResponderVtable.cancelled") {
        // SAFETY: the entry keeps the handle alive.
        Some(entry) => unsafe { (PLAIN.cancelled)(handle(&entry)) },
        None => GONE.as_ptr(),
    }
}

unsafe extern "C" fn mark(responder: *mut ResponderHandle, stage: Stage, time_ns: u64) {
    let call = "ResponderVtable.mark";
    let Some(entry) = find(responder, Kind::Responder, call) else { return };
    let _turn = entry.turn(call);
    // SAFETY: the entry keeps the handle alive.
    unsafe { (PLAIN.mark)(handle(&entry), stage, time_ns) };
}

unsafe extern "C" fn release(responder: *mut ResponderHandle) {
    let call = "ResponderVtable.release";
    let Some(entry) = take(responder, Kind::Responder, call, Rule::ReleasedTwice) else { return };
    drop(entry.turn(call));
}
