//! The host's half of `fault/1`.

use std::ffi::c_void;

use trireme_abi::{FaultVtable, StrView};

use crate::vtables::services;
use crate::wire::read;

/// Characters of a message that are kept.
const MOST: usize = 4096;

pub(crate) static FAULT: FaultVtable = FaultVtable { struct_size: size_of::<FaultVtable>(), device_lost };

unsafe extern "C" fn device_lost(context: *const c_void, message: StrView) {
    // SAFETY: the ABI demands the host's context and a readable text.
    let (services, message) = unsafe { (services(context), read(message)) };
    let message: String = message.chars().take(MOST).collect();
    let message = if message.is_empty() { "a backend lost its device".to_owned() } else { message };
    services.device_lost(&message);
}
