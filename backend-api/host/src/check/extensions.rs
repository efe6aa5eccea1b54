//! The host's halves of extensions, as far as they take handles that a checked backend has only tokens of.

use std::ffi::c_void;

use trireme_abi::{
    BlsVtable, Buffer, CallReply, CallerHandle, ModelsVtable, OpenAiAnswer, OpenAiCall, OpenAiVtable,
    RequestHandle, ResponderHandle, ResponseFlags, SendVerdict, Status as WireStatus, StrView,
};

use super::registry::{Entry, Kind, Real, add, find, take};
use super::{Rule, buffers, requests, responders};
use crate::bls::BLS as PLAIN_BLS;
use crate::models::MODELS as PLAIN_MODELS;
use crate::openai::OPENAI as PLAIN_OPENAI;
use crate::vtables::{HostContext, MAX_LIST};

pub(crate) static BLS: BlsVtable = BlsVtable { struct_size: size_of::<BlsVtable>(), open, call, close };
pub(crate) static MODELS: ModelsVtable =
    ModelsVtable { struct_size: size_of::<ModelsVtable>(), load, ..PLAIN_MODELS };
pub(crate) static OPENAI: OpenAiVtable = OpenAiVtable { struct_size: size_of::<OpenAiVtable>(), read, send };

unsafe extern "C" fn open(responder: *const ResponderHandle) -> *mut CallerHandle {
    let Some(entry) = find(responder, Kind::Responder, "BlsVtable.open") else { return std::ptr::null_mut() };
    // SAFETY: the entry keeps the handle alive.
    let caller = unsafe { (PLAIN_BLS.open)(responders::handle(&entry)) };
    add(Entry::new(entry.party, entry.instance, Real::Caller(caller)))
}

unsafe extern "C" fn call(
    caller: *const CallerHandle,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    reply: CallReply,
) -> WireStatus {
    let entry = find(caller, Kind::Caller, "BlsVtable.call");
    let real = match entry.as_deref() {
        Some(Entry { real: Real::Caller(real), .. }) => *real,
        _ => std::ptr::null_mut(),
    };
    if let Some(entry) = entry.as_ref().filter(|_| !buffers.is_null() && buffer_count <= MAX_LIST) {
        for number in 0..buffer_count {
            // SAFETY: the ABI demands `buffer_count` whole buffers.
            buffers::hand_over(unsafe { &mut *buffers.add(number) }, entry.party, "BlsVtable.call");
        }
    }
    // SAFETY: the entry keeps the caller open; null is refused there, and the buffers given back.
    unsafe { (PLAIN_BLS.call)(real, message, buffers, buffer_count, reply) }
}

unsafe extern "C" fn close(caller: *mut CallerHandle) {
    drop(take(caller, Kind::Caller, "BlsVtable.close", Rule::ReleasedTwice));
}

unsafe extern "C" fn load(
    context: *const c_void,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    reply: CallReply,
) -> WireStatus {
    // SAFETY: the ABI demands the host's context.
    let party = unsafe { (*context.cast::<HostContext>()).party };
    if let Some(party) = party.filter(|_| !buffers.is_null() && buffer_count <= MAX_LIST) {
        for number in 0..buffer_count {
            // SAFETY: the ABI demands `buffer_count` whole buffers.
            buffers::hand_over(unsafe { &mut *buffers.add(number) }, party, "ModelsVtable.load");
        }
    }
    // SAFETY: as this function's own arguments.
    unsafe { (PLAIN_MODELS.load)(context, message, buffers, buffer_count, reply) }
}

unsafe extern "C" fn read(request: *const RequestHandle, out: *mut OpenAiCall) -> bool {
    let Some(entry) = find(request, Kind::Request, "OpenAiVtable.read") else { return false };
    // SAFETY: the entry keeps the handle alive; a null pointer is refused there.
    unsafe { (PLAIN_OPENAI.read)(requests::handle(&entry), out) }
}

unsafe extern "C" fn send(
    responder: *mut ResponderHandle,
    answer: *const OpenAiAnswer,
    flags: ResponseFlags,
) -> SendVerdict {
    let call = "OpenAiVtable.send";
    let Some(entry) = find(responder, Kind::Responder, call) else { return SendVerdict::CLOSED };
    let _turn = entry.turn(call);
    // SAFETY: the ABI demands a whole answer, or null.
    let failed = unsafe { answer.as_ref() }.is_some_and(|answer| answer.status >= 400);
    let last = failed || flags.0 & ResponseFlags::FINAL.0 != 0;
    responders::before_sending(&entry, last, call);
    // SAFETY: the entry keeps the handle alive.
    let verdict = unsafe { (PLAIN_OPENAI.send)(responders::handle(&entry), answer, flags) };
    responders::after_sending(&entry, last, verdict);
    verdict
}
