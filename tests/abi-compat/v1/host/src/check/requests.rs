//! How a checked backend reads a request.

use trireme_abi::{
    Buffer, BufferView, InputInfo, MemoryKind, Parameter, RequestHandle, RequestVtable, Status as WireStatus,
    StrView,
};

use super::Rule;
use super::buffers;
use super::registry::{Entry, Kind, Real, find, take};
use super::report;
use crate::status::Status;
use crate::vtables::{REQUEST as PLAIN, note_done};
use crate::wire::view;

pub(crate) static REQUEST: RequestVtable = RequestVtable {
    struct_size: size_of::<RequestVtable>(),
    id,
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
    release,
    release_after,
};

/// The handle of an entry that was found as a request.
pub(super) fn handle(entry: &Entry) -> *mut RequestHandle {
    match entry.real {
        Real::Request(handle) => handle,
        _ => std::ptr::null_mut(),
    }
}

pub(super) fn dead() -> WireStatus {
    Status::invalid("the handle was released, or never given").into_wire()
}

/// Whether there is a place for the result; without one the call goes on and fails as it would without the layer.
pub(super) fn look_at_result<T>(out: *mut T, entry: &Entry, call: &str) {
    if out.is_null() {
        report(Rule::NullResult, entry.party, format!("{call} was called with null for its result"));
    }
}

macro_rules! reading {
    ($($name:ident($($argument:ident: $ty:ty),*) -> $result:ty, else $otherwise:expr;)*) => {$(
        unsafe extern "C" fn $name(request: *const RequestHandle $(, $argument: $ty)*) -> $result {
            let call = concat!("RequestVtable.", stringify!($name));
            let Some(entry) = find(request, Kind::Request, call) else { return $otherwise };
            // SAFETY: the entry keeps the handle alive.
            unsafe { (PLAIN.$name)(handle(&entry) $(, $argument)*) }
        }
    )*};
}

reading! {
    id() -> StrView, else view("");
    input_count() -> usize, else 0;
    parameter_count() -> usize, else 0;
    output_wanted(output: usize) -> bool, else false;
    batch_size() -> u32, else 1;
    priority() -> u64, else 0;
    deadline_ns() -> u64, else 0;
    correlation_id() -> u64, else 0;
    correlation_text() -> StrView, else view("");
    trace_parent() -> StrView, else view("");
}

macro_rules! filling {
    ($($name:ident($($argument:ident: $ty:ty),*) into $out:ty;)*) => {$(
        unsafe extern "C" fn $name(
            request: *const RequestHandle $(, $argument: $ty)*, out: *mut $out
        ) -> WireStatus {
            let call = concat!("RequestVtable.", stringify!($name));
            let Some(entry) = find(request, Kind::Request, call) else { return dead() };
            look_at_result(out, &entry, call);
            // SAFETY: the entry keeps the handle alive; a null pointer is refused there.
            unsafe { (PLAIN.$name)(handle(&entry) $(, $argument)*, out) }
        }
    )*};
}

filling! {
    input(index: usize) into InputInfo;
    input_buffer(index: usize, buffer: usize) into BufferView;
    parameter(index: usize) into Parameter;
}

unsafe extern "C" fn gather(
    request: *const RequestHandle,
    index: usize,
    kind: MemoryKind,
    device: i32,
    out: *mut Buffer,
) -> WireStatus {
    let call = "RequestVtable.gather";
    let Some(entry) = find(request, Kind::Request, call) else { return dead() };
    look_at_result(out, &entry, call);
    // SAFETY: the entry keeps the handle alive; a null pointer is refused there.
    unsafe {
        let status = (PLAIN.gather)(handle(&entry), index, kind, device, out);
        buffers::watch_result(status, out, entry.party, false)
    }
}

unsafe extern "C" fn release(request: *mut RequestHandle) {
    // The request goes when a call that is still under way lets go of the entry.
    drop(take(request, Kind::Request, "RequestVtable.release", Rule::ReleasedTwice));
}

unsafe extern "C" fn release_after(request: *mut RequestHandle, done_event: u64) {
    let call = "RequestVtable.release_after";
    let Some(entry) = take(request, Kind::Request, call, Rule::ReleasedTwice) else { return };
    // Now, while the event is there: the request itself goes when a call that is under way lets go of the entry.
    // SAFETY: the entry keeps the handle alive; the ABI demands an event that lives until the call returns.
    unsafe { note_done(handle(&entry), done_event) };
}
