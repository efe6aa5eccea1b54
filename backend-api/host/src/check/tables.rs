//! The host's table as a checked backend sees it.

use std::ffi::c_void;

use trireme_abi::{
    Buffer, HostRef, HostVtable, HostVtablePtr, MemoryKind, RequestItem, RequestVtablePtr,
    ResponderVtablePtr, Status as WireStatus, StrView,
};

use super::registry::{Entry, Party, Real, add};
use super::requests::REQUEST;
use super::responders::RESPONDER;
use super::{buffers, extensions};
use crate::request::Item;
use crate::vtables::{self, HOST as PLAIN, HostContext};

static HOST: HostVtable = HostVtable {
    struct_size: size_of::<HostVtable>(),
    request: RequestVtablePtr(&REQUEST),
    responder: ResponderVtablePtr(&RESPONDER),
    log_level: PLAIN.log_level,
    log: PLAIN.log,
    metric: PLAIN.metric,
    allocate,
    now_ns: PLAIN.now_ns,
    extension,
};

pub(crate) fn host_ref(context: &'static HostContext) -> HostRef {
    HostRef { context: std::ptr::from_ref(context).cast(), vtable: HostVtablePtr(&HOST) }
}

/// Hands a request over as two tokens.
pub(crate) fn into_wire(item: Item, party: &'static Party, instance: u64) -> RequestItem {
    let RequestItem { request, responder } = vtables::into_wire(item);
    RequestItem {
        request: add(Entry::new(party, instance, Real::Request(request))),
        responder: add(Entry::new(party, instance, Real::Responder(responder))),
    }
}

unsafe extern "C" fn allocate(
    context: *const c_void,
    kind: MemoryKind,
    device: i32,
    byte_size: usize,
    out: *mut Buffer,
) -> WireStatus {
    // SAFETY: the ABI demands the host's context; a null pointer is refused there.
    unsafe {
        let party = (*context.cast::<HostContext>()).party;
        let status = (PLAIN.allocate)(context, kind, device, byte_size, out);
        match party {
            Some(party) => buffers::watch_result(status, out, party, true),
            None => status,
        }
    }
}

unsafe extern "C" fn extension(context: *const c_void, id: StrView) -> *const c_void {
    // SAFETY: the ABI demands the host's context and a readable text.
    unsafe {
        match crate::wire::read(id).as_str() {
            trireme_abi::BLS_1 => std::ptr::from_ref(&extensions::BLS).cast(),
            trireme_abi::MODELS_1 => std::ptr::from_ref(&extensions::MODELS).cast(),
            trireme_abi::OPENAI_1 => std::ptr::from_ref(&extensions::OPENAI).cast(),
            _ => (PLAIN.extension)(context, id),
        }
    }
}
