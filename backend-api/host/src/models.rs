//! The host's half of `models/1`: what a backend wants of the server's models goes to the services as values.

use std::ffi::c_void;

use trireme_abi::{Buffer, CallReply, ModelsVtable, StrView};

use crate::bls::{CallReader, Most, take};
use crate::status::Status;
use crate::vtables::services;
use crate::wire::read;

pub(crate) static MODELS: ModelsVtable =
    ModelsVtable { struct_size: size_of::<ModelsVtable>(), load, unload, ready };

const LOAD: Most =
    Most { what: "a load", text: "configuration and paths of files", items: "files", buffers: 1024 };
const UNLOAD: Most = Most { what: "an unload", text: "names", items: "files", buffers: 0 };

unsafe extern "C" fn load(
    context: *const c_void,
    message: StrView,
    buffers: *mut Buffer,
    buffer_count: usize,
    reply: CallReply,
) -> trireme_abi::Status {
    // SAFETY: the ABI demands a readable text, `buffer_count` whole buffers and the host's context.
    let (call, services) = unsafe { (take(message, buffers, buffer_count, &LOAD), services(context)) };
    into_wire(call.and_then(|call| services.load_model(call, CallReader::new(reply))))
}

unsafe extern "C" fn unload(
    context: *const c_void,
    message: StrView,
    reply: CallReply,
) -> trireme_abi::Status {
    // SAFETY: the ABI demands a readable text and the host's context; there are no buffers.
    let (call, services) = unsafe { (take(message, std::ptr::null_mut(), 0, &UNLOAD), services(context)) };
    into_wire(call.and_then(|call| services.unload_model(call, CallReader::new(reply))))
}

unsafe extern "C" fn ready(
    context: *const c_void,
    model: StrView,
    version: i64,
    ready: *mut u32,
) -> trireme_abi::Status {
    if ready.is_null() {
        return Status::invalid("no place for whether the model is ready").into_wire();
    }
    // SAFETY: the ABI demands a readable text and the host's context.
    let (model, services) = unsafe { (read(model), services(context)) };
    into_wire(services.model_ready(&model, (version > 0).then_some(version)).map(|is_ready| {
        // SAFETY: the ABI demands a place that can be written; not null.
        unsafe { ready.write(u32::from(is_ready)) };
    }))
}

fn into_wire(result: Result<(), Status>) -> trireme_abi::Status {
    match result {
        Ok(()) => Status::ok(),
        Err(status) => status.into_wire(),
    }
}

/// Of a host that has no models to load.
pub(crate) fn unsupported() -> Status {
    Status {
        code: trireme_abi::StatusCode::UNSUPPORTED,
        message: "this host does not load models on behalf of backends".to_owned(),
    }
}
