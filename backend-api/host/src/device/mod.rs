//! Memory of devices. The server has no driver: a backend that has one is the *provider* of its devices (`device/1`).
//!
//! A tensor on a device is a [`DeviceTensor`], which nobody on this side can read by accident: its bytes are to be had by
//! [`DeviceTensor::to_host`], which copies them, once, through pinned memory. Where an input is read is decided last, when
//! it is known which instance takes the request (`place`).

mod half;
mod memory;
mod place;
mod pool;
mod provider;
mod ranges;
mod tensor;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Once, OnceLock, PoisonError, RwLock};

use trireme_abi::{DeviceVtable, LogLevel, MemoryKind};

pub(crate) use half::DEVICE;
pub(crate) use memory::allocate;
pub(crate) use place::{Reader, gather, note_done};
pub use tensor::DeviceTensor;

use crate::memory::Foreign;
use crate::services::HostServices;
use crate::status::Status;
use pool::Pool;
use provider::Provider;

/// How much memory the server takes for itself when it is first needed, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSizes {
    /// Pinned memory, through which tensors go between devices and the process. 0: none; then they go through ordinary
    /// memory, which is slower.
    pub pinned: usize,
    /// Memory of each GPU, for what backends ask the server for. What does not fit is asked of the provider.
    pub gpu: BTreeMap<i32, usize>,
}

impl PoolSizes {
    /// Of a GPU that is not named.
    pub const GPU: usize = 64 << 20;
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self { pinned: 256 << 20, gpu: BTreeMap::new() }
    }
}

/// Says how large the pools are; before the first backend is created.
pub fn set_pool_sizes(sizes: PoolSizes) {
    let _ = SIZES.set(sizes);
}

/// How many bytes went which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCopies {
    /// From a device to the memory of the process.
    pub to_host: u64,
    /// From the memory of the process to a device.
    pub to_device: u64,
    /// From one device to another.
    pub between: u64,
}

/// What the server has copied so far to and from devices.
pub fn device_copies() -> DeviceCopies {
    let [to_host, to_device, between] = [&TO_HOST, &TO_DEVICE, &BETWEEN].map(|count| count.load(Relaxed));
    DeviceCopies { to_host, to_device, between }
}

/// Opens memory of another process on a GPU: `handle` is what its platform calls an IPC handle, the range is counted from
/// the beginning of the allocation, in bytes.
///
/// # Errors
/// UNSUPPORTED without a provider of that GPU; what the provider says.
pub fn open_shared(device: i32, handle: &[u8], byte_size: u64) -> Result<DeviceTensor, Status> {
    let found = find(device).ok_or_else(|| no_provider(MemoryKind::GPU, device))?;
    let opened = found.provider.open(device, handle, 0, byte_size)?;
    DeviceTensor::new(opened)
}

/// A device with a provider. Lives until the process ends.
pub(crate) struct Device {
    number: i32,
    /// As people call it.
    name: String,
    platform: String,
    provider: Provider,
    pool: Pool,
}

static SIZES: OnceLock<PoolSizes> = OnceLock::new();
static DEVICES: RwLock<Vec<&'static Device>> = RwLock::new(Vec::new());
static PINNED: OnceLock<Pool> = OnceLock::new();

static TO_HOST: AtomicU64 = AtomicU64::new(0);
static TO_DEVICE: AtomicU64 = AtomicU64::new(0);
static BETWEEN: AtomicU64 = AtomicU64::new(0);

fn all() -> Vec<&'static Device> {
    DEVICES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether a backend that is loaded provides the memory of a GPU.
pub fn has_devices() -> bool {
    !DEVICES.read().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// GPU `number`, if somebody serves it.
pub(crate) fn find(number: i32) -> Option<&'static Device> {
    let devices = DEVICES.read().unwrap_or_else(PoisonError::into_inner);
    devices.iter().find(|device| device.number == number).copied()
}

pub(crate) fn no_provider(kind: MemoryKind, device: i32) -> Status {
    let of = if kind == MemoryKind::GPU { format!(" of GPU {device}") } else { String::new() };
    let message = format!("there is no device provider for memory of kind {}{of}", kind.0);
    Status { code: trireme_abi::StatusCode::UNSUPPORTED, message }
}

/// Takes the devices of a backend into the list, those that nobody serves yet.
///
/// # Safety
/// `table` is null, or what the backend gave for `device/1`.
pub(crate) unsafe fn register(
    table: *const DeviceVtable,
    backend: &str,
    services: &'static dyn HostServices,
) {
    if table.is_null() {
        return;
    }
    // SAFETY: not null, and by this function's contract.
    let provider = unsafe { Provider::new(table) };
    let described = provider.and_then(|provider| Ok((provider, provider.devices()?)));
    let (provider, described) = match described {
        Ok(described) => described,
        Err(status) => {
            let said =
                format!("backend '{backend}' offers devices, but not so that they can be used: {status}");
            return services.log(LogLevel::ERROR, "device", &said);
        }
    };
    let sizes = SIZES.get_or_init(PoolSizes::default);
    for one in described.into_iter().filter(|one| one.kind == MemoryKind::GPU) {
        let number = one.device;
        let mut devices = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
        if devices.iter().any(|device| device.number == number) {
            continue;
        }
        let size = sizes.gpu.get(&number).copied().unwrap_or(PoolSizes::GPU);
        let pool = Pool::new(provider, MemoryKind::GPU, number, size, services);
        let said = format!("backend '{backend}' provides the memory of GPU {number} ({})", one.name);
        let device = Device { number, name: one.name, platform: one.platform, provider, pool };
        // Lives as long as the provider: until the process ends.
        devices.push(Box::leak(Box::new(device)));
        drop(devices);
        PINNED.get_or_init(|| Pool::new(provider, MemoryKind::CPU_PINNED, number, sizes.pinned, services));
        services.log(LogLevel::INFO, "device", &said);
    }
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        for (number, size) in sizes.gpu.iter().filter(|(number, size)| **size > 0 && find(**number).is_none())
        {
            let said = format!("a pool of {size} bytes is set for GPU {number}, which no backend provides");
            services.log(LogLevel::WARN, "device", &said);
        }
    });
}

/// Waits until memory that a backend gave may be read by the CPU. `buffer` is memory of the process.
///
/// # Errors
/// The event is of a device that nobody serves; the work before it failed.
pub(crate) fn wait_until_ready(buffer: &Foreign) -> Result<(), Status> {
    let (kind, device, event) = {
        let wire = buffer.wire();
        (wire.kind, wire.device, wire.ready_event)
    };
    if event == 0 {
        return Ok(());
    }
    if kind != MemoryKind::CPU_PINNED {
        return Err(Status::internal(format!(
            "the backend sent memory of kind {} with an event; only memory of a device and pinned memory has one",
            kind.0
        )));
    }
    let found = find(device).ok_or_else(|| {
        Status::internal(format!(
            "the backend sent memory with an event of GPU {device}, which has no provider"
        ))
    })?;
    found.provider.wait(device, event)
}
