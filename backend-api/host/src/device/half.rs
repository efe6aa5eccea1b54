//! The host's half of `device/1`: each call goes on to the provider of the device that it names.

use std::ffi::c_void;
use std::ptr::null_mut;

use trireme_abi::{
    Buffer, DeviceInfo, DeviceVtable, IpcMemory, MemoryKind, MemoryRange, Status as WireStatus, StatusCode,
};

use super::{all, find, no_provider};
use crate::status::Status;
use crate::vtables::answer;
use crate::wire::view;

pub(crate) static DEVICE: DeviceVtable = DeviceVtable {
    struct_size: size_of::<DeviceVtable>(),
    context: null_mut(),
    device_count,
    device,
    allocate,
    copy,
    fill,
    event_join,
    event_query,
    event_wait,
    event_destroy,
    ipc_export,
    ipc_open,
};

unsafe extern "C" fn device_count(_: *mut c_void) -> usize {
    all().len()
}

unsafe extern "C" fn device(_: *mut c_void, index: usize, out: *mut DeviceInfo) -> WireStatus {
    let devices = all();
    let Some(device) = devices.get(index) else {
        let count = devices.len();
        return Status::invalid(format!("device number {index} is out of range: there are {count}"))
            .into_wire();
    };
    // SAFETY: the ABI demands a struct that says how far it reaches.
    unsafe {
        if out.is_null() || (*out).struct_size < size_of::<DeviceInfo>() {
            return Status::invalid("the struct for the device is too short").into_wire();
        }
        (*out).kind = MemoryKind::GPU;
        (*out).device = device.number;
        (*out).platform = view(&device.platform);
        (*out).name = view(&device.name);
    }
    Status::ok()
}

unsafe extern "C" fn allocate(
    _: *mut c_void,
    kind: MemoryKind,
    device: i32,
    byte_size: usize,
    out: *mut Buffer,
) -> WireStatus {
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, super::allocate(kind, device, byte_size)) }
}

/// The table of the provider that serves GPU `device`.
fn table(device: i32) -> Result<&'static DeviceVtable, Status> {
    let found = find(device).map(|device| device.provider.table());
    found.ok_or_else(|| no_provider(MemoryKind::GPU, device))
}

/// That of a range on a GPU.
unsafe fn table_of(range: *const MemoryRange) -> Result<&'static DeviceVtable, Status> {
    // SAFETY: the caller hands in a whole range, or null.
    match unsafe { range.as_ref() } {
        Some(range) if range.kind == MemoryKind::GPU => table(range.device),
        _ => Err(Status::invalid("the range is not in the memory of a device")),
    }
}

unsafe extern "C" fn copy(
    _: *mut c_void,
    to: *const MemoryRange,
    from: *const MemoryRange,
    after: u64,
    done: *mut u64,
) -> WireStatus {
    // SAFETY: the ABI demands whole ranges.
    let found = unsafe {
        match (table_of(to), table_of(from)) {
            // No provider knows both.
            (Ok(one), Ok(other)) if !std::ptr::eq(one, other) => Err(Status {
                code: StatusCode::UNSUPPORTED,
                message: "the ranges are on devices of different providers: copy by way of the process"
                    .to_owned(),
            }),
            (Ok(table), _) | (_, Ok(table)) => Ok(table),
            (Err(status), _) => Err(status),
        }
    };
    match found {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.copy)(table.context, to, from, after, done) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn fill(
    _: *mut c_void,
    to: *const MemoryRange,
    value: u8,
    after: u64,
    done: *mut u64,
) -> WireStatus {
    // SAFETY: the ABI demands a whole range.
    match unsafe { table_of(to) } {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.fill)(table.context, to, value, after, done) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn event_join(
    _: *mut c_void,
    device: i32,
    events: *const u64,
    count: usize,
    out: *mut u64,
) -> WireStatus {
    match table(device) {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.event_join)(table.context, device, events, count, out) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn event_query(_: *mut c_void, device: i32, event: u64, out: *mut u32) -> WireStatus {
    match table(device) {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.event_query)(table.context, device, event, out) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn event_wait(_: *mut c_void, device: i32, event: u64) -> WireStatus {
    match table(device) {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.event_wait)(table.context, device, event) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn event_destroy(_: *mut c_void, device: i32, event: u64) {
    if let Ok(table) = table(device) {
        // SAFETY: the arguments go on as they are.
        unsafe { (table.event_destroy)(table.context, device, event) };
    }
}

unsafe extern "C" fn ipc_export(
    _: *mut c_void,
    range: *const MemoryRange,
    handle: *mut u8,
    capacity: usize,
    out: *mut IpcMemory,
) -> WireStatus {
    // SAFETY: the ABI demands a whole range.
    match unsafe { table_of(range) } {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.ipc_export)(table.context, range, handle, capacity, out) },
        Err(status) => status.into_wire(),
    }
}

unsafe extern "C" fn ipc_open(
    _: *mut c_void,
    device: i32,
    memory: *const IpcMemory,
    out: *mut Buffer,
) -> WireStatus {
    match table(device) {
        // SAFETY: the arguments go on as they are.
        Ok(table) => unsafe { (table.ipc_open)(table.context, device, memory, out) },
        Err(status) => status.into_wire(),
    }
}
