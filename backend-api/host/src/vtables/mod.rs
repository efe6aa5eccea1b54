//! The host's side of the wire: how a backend reads requests, answers them and calls services.
//!
//! Every function here is called by foreign code. Null pointers and numbers out of range are answered with an error;
//! what cannot be checked (a handle that was released before) is the backend's duty under the ABI.

mod answers;
mod host;
mod request;
mod responder;

use trireme_abi::{
    HostRef, HostVtablePtr, RequestHandle, RequestItem, ResponderHandle, Status as WireStatus,
};

use crate::check::Party;
use crate::request::{Item, Request};
use crate::response::Responder;
use crate::services::HostServices;
use crate::status::Status;
use answers::take_response;

pub(crate) use answers::{element_count, element_size, refuse_outputs};
pub(crate) use host::{HOST, services};
pub(crate) use request::{REQUEST, note_done};
pub(crate) use responder::{RESPONDER, send_checked};

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
