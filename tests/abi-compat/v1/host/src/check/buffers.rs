//! Memory that goes to and fro. What the host gives is a token to the backend, so that it is seen when one buffer is
//! released twice, or used after it was handed over.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use trireme_abi::{Buffer, MemoryKind, Status as WireStatus, StatusCode};

use super::registry::{Entry, Kind, Party, Real, add, is_token, take};
use super::{Rule, report};
use crate::memory;

/// Puts a buffer that a call has given under watch. `guarded`: it is memory of the host with guard bytes behind it.
///
/// # Safety
/// If the status is OK and `out` is not null, `out` holds a buffer that nobody else has seen.
pub(super) unsafe fn watch_result(
    status: WireStatus,
    out: *mut Buffer,
    party: &'static Party,
    guarded: bool,
) -> WireStatus {
    if status.code == StatusCode::OK && !out.is_null() {
        // SAFETY: by this function's contract.
        unsafe { out.write(watched(out.read(), party, guarded)) };
    }
    status
}

fn watched(real: Buffer, party: &'static Party, guarded: bool) -> Buffer {
    // Behind memory of a provider there is nothing of ours.
    let guarded = guarded && real.kind == MemoryKind::CPU;
    let shown = Buffer { release: Some(release), owner: std::ptr::null_mut(), ..copy(&real) };
    Buffer { owner: add(Entry::new(party, 0, Real::Buffer(real, guarded))), ..shown }
}

/// The fields of a buffer; who owns the memory does not change.
fn copy(buffer: &Buffer) -> Buffer {
    Buffer { ..*buffer }
}

unsafe extern "C" fn release(owner: *mut c_void, done_event: u64) {
    if let Some(entry) = take(owner, Kind::Buffer, "Buffer.release", Rule::ReleasedTwice) {
        entry.done_event.store(done_event, SeqCst);
    }
}

/// Of buffers that the backend hands over: the backend's own stay as they are; those of the host go back to it, and the
/// backend's token is dead. One whose token was dead before cannot be read: it becomes memory that the host refuses.
pub(super) fn hand_over(buffer: &mut Buffer, party: &'static Party, call: &str) {
    if !is_token(buffer.owner) {
        return;
    }
    let Some(entry) = take(buffer.owner, Kind::Buffer, call, Rule::UsedAfterRelease) else {
        buffer.release = None;
        buffer.kind = MemoryKind(u32::MAX);
        return;
    };
    if let Real::Buffer(real, guarded) = &entry.real {
        // Before it as well as behind it: an offset below the start is a large number.
        let offset = buffer.data.addr().wrapping_sub(real.data.addr());
        if offset.checked_add(buffer.len).is_none_or(|end| end > real.len) {
            let signed = offset.cast_signed();
            let what = format!(
                "{call} was given {} bytes from byte {signed} of a buffer of the host, which has {}",
                buffer.len, real.len
            );
            report(Rule::OutsideBuffer, party, what);
            (buffer.data, buffer.len) = (real.data, buffer.len.min(real.len));
        }
        // SAFETY: the entry owns the memory.
        if *guarded && !unsafe { memory::guard_is_whole(real) } {
            let what = format!("bytes behind a buffer of {} bytes have changed before {call}", real.len);
            report(Rule::WritePastBuffer, party, what);
        }
    }
    buffer.owner = Box::into_raw(Box::new(entry)).cast();
    buffer.release = Some(release_handed_over);
}

unsafe extern "C" fn release_handed_over(owner: *mut c_void, done_event: u64) {
    // SAFETY: the box that `hand_over` made; the host releases once.
    let entry = unsafe { Box::from_raw(owner.cast::<Arc<Entry>>()) };
    entry.done_event.store(done_event, SeqCst);
}
