use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use trireme_abi::{
    DEVICE_1, DeviceVtable, FAULT_1, FaultVtable, HostRef, HostVtable, LogLevel, MetricCell, MetricDesc,
    MetricKind, OPENAI_1, OpenAiVtable, RequestVtable, ResponderVtable,
};

use crate::error::{Error, Result};
use crate::memory::{Exported, HostDevices, Memory, no_devices};
use crate::metrics::{Counter, Gauge, MetricSet};
use crate::models::Models;
use crate::wire::{check, view};

/// The server, as a backend sees it. Cheap to clone.
#[derive(Clone)]
pub struct Host(HostRef, *const OpenAiVtable);

// SAFETY: the ABI allows all calls of the host from any thread, until the process ends.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// # Safety
    /// `host` came from the server.
    pub(crate) unsafe fn new(host: HostRef) -> Self {
        let bare = Self(host, std::ptr::null());
        let openai = bare.extension(OPENAI_1).cast();
        Self(host, openai)
    }

    /// The host's half of `openai/1`, if it has one; looked up once.
    pub(crate) fn openai(&self) -> Option<&'static OpenAiVtable> {
        // SAFETY: what the host gave for this id; lives until the process ends.
        unsafe { self.1.as_ref() }
    }

    fn table(&self) -> &'static HostVtable {
        // SAFETY: lives until the process ends.
        unsafe { &*self.0.vtable.0 }
    }

    pub(crate) fn requests(&self) -> &'static RequestVtable {
        // SAFETY: lives until the process ends.
        unsafe { &*self.table().request.0 }
    }

    pub(crate) fn responders(&self) -> &'static ResponderVtable {
        // SAFETY: lives until the process ends.
        unsafe { &*self.table().responder.0 }
    }

    /// The host's half of an extension, or null.
    pub(crate) fn extension(&self, id: &str) -> *const std::ffi::c_void {
        // SAFETY: the context came with the table; the text lives until the call returns.
        unsafe { (self.table().extension)(self.0.context, view(id)) }
    }

    /// Nanoseconds of the clock that deadlines are given in.
    pub fn now_ns(&self) -> u64 {
        // SAFETY: the context came with the table.
        unsafe { (self.table().now_ns)(self.0.context) }
    }

    /// Logs an error.
    pub fn error(&self, message: impl fmt::Display) {
        self.log(LogLevel::ERROR, &message);
    }

    /// Logs a warning.
    pub fn warn(&self, message: impl fmt::Display) {
        self.log(LogLevel::WARN, &message);
    }

    /// Logs what a user wants to know.
    pub fn info(&self, message: impl fmt::Display) {
        self.log(LogLevel::INFO, &message);
    }

    /// Logs what a developer wants to know.
    pub fn verbose(&self, message: impl fmt::Display) {
        self.log(LogLevel::VERBOSE, &message);
    }

    fn log(&self, level: LogLevel, message: &dyn fmt::Display) {
        // SAFETY: the context came with the table; the host writes the level atomically.
        let wanted = unsafe {
            let level = (self.table().log_level)(self.0.context);
            AtomicU32::from_ptr(level.cast_mut()).load(Relaxed)
        };
        if level.0 > wanted {
            return;
        }
        let text = message.to_string();
        // SAFETY: the texts live until the call returns.
        unsafe { (self.table().log)(self.0.context, level, view(env!("CARGO_PKG_NAME")), view(&text)) };
    }

    /// A counter among the server's metrics. The same name and labels give the same counter.
    ///
    /// # Errors
    /// A name that Prometheus does not allow, or one that is a gauge already.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        let cell = self.metric(name, help, MetricKind::COUNTER, labels)?;
        // SAFETY: what the host gives lives until the process ends.
        Ok(unsafe { Counter::forever(cell) })
    }

    /// A gauge among the server's metrics.
    ///
    /// # Errors
    /// A name that Prometheus does not allow, or one that is a counter already.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        let cell = self.metric(name, help, MetricKind::GAUGE, labels)?;
        // SAFETY: as above.
        Ok(unsafe { Gauge::forever(cell) })
    }

    /// An empty set of metrics that end with it. Those of [`Host::counter`] and [`Host::gauge`] never end.
    ///
    /// # Errors
    /// UNSUPPORTED by a server that has none.
    pub fn metric_set(&self) -> Result<MetricSet> {
        MetricSet::open(self, self.0.context)
    }

    /// The server's models, to be loaded and unloaded on behalf of the model `by`.
    ///
    /// # Errors
    /// UNSUPPORTED by a server that lets no backend do so.
    pub fn models(&self, by: &str) -> Result<Models> {
        Models::new(self, self.0.context, by)
    }

    /// Says that a device is of no use to this process any more, as after a CUDA error that every further call repeats:
    /// which device, and what it said. Called before the requests that it takes with it are answered. The server then is
    /// not ready, finishes what it can, and ends with an exit code of its own. For anything less, fail the request or
    /// the instance. A server that does not know of such faults logs it as an error.
    pub fn device_lost(&self, message: impl fmt::Display) {
        let text = message.to_string();
        // SAFETY: the host gives its table, which lives until the process ends, or null.
        match unsafe { self.extension(FAULT_1).cast::<FaultVtable>().as_ref() } {
            // SAFETY: the context is the host's; the text lives until the call returns.
            Some(table) => unsafe { (table.device_lost)(self.0.context, view(&text)) },
            None => self.error(text),
        }
    }

    /// The host's half of `device/1`, if it has one.
    pub(crate) fn devices(&self) -> Option<HostDevices> {
        let table = self.extension(DEVICE_1).cast::<DeviceVtable>();
        // SAFETY: what the host gave for this id; lives until the process ends, and begins with its size.
        let whole = !table.is_null() && unsafe { (*table).struct_size } >= size_of::<DeviceVtable>();
        // SAFETY: as above.
        whole.then(|| HostDevices(unsafe { &*table }))
    }

    /// Memory of a GPU, zeroed.
    ///
    /// # Errors
    /// UNSUPPORTED if nobody serves that GPU, UNAVAILABLE if there is not so much.
    pub fn allocate_on(&self, device: i32, byte_size: usize) -> Result<Memory> {
        self.devices().ok_or_else(no_devices)?.allocate(device, byte_size)
    }

    /// Lets another process open memory of a GPU, which must live until that process has closed it.
    ///
    /// # Errors
    /// It is not on a GPU; UNSUPPORTED if it is of a kind that cannot be shared.
    pub fn export(&self, memory: &Memory) -> Result<Exported> {
        let view =
            memory.on_device().ok_or_else(|| Error::invalid("only memory of a GPU can be exported"))?;
        self.devices().ok_or_else(no_devices)?.export(view)
    }

    /// Memory of GPU `device` that another process has exported, open as long as this is held.
    ///
    /// # Errors
    /// UNSUPPORTED if nobody serves that GPU; INVALID_ARG if the handle is none, or the range is not within its allocation.
    pub fn open_exported(&self, device: i32, from: &Exported, byte_size: usize) -> Result<Memory> {
        self.devices().ok_or_else(no_devices)?.open(device, from, byte_size)
    }

    /// Returns when an event of a GPU has passed. For who does not talk to the GPU himself.
    ///
    /// # Errors
    /// UNSUPPORTED if nobody serves that GPU; the work before the event failed.
    pub fn wait_for(&self, device: i32, event: u64) -> Result<()> {
        self.devices().ok_or_else(no_devices)?.wait(device, event)
    }

    fn metric(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<NonNull<AtomicU64>> {
        let flat: Vec<_> = labels.iter().flat_map(|(key, value)| [view(key), view(value)]).collect();
        let desc = MetricDesc {
            name: view(name),
            help: view(help),
            kind,
            reserved: 0,
            labels: flat.as_ptr(),
            label_count: labels.len(),
        };
        let mut cell = MetricCell(std::ptr::null_mut());
        // SAFETY: the description lives until the call returns.
        unsafe { check((self.table().metric)(self.0.context, &desc, &mut cell))? };
        NonNull::new(cell.0.cast()).ok_or_else(|| Error::internal("the server gave no cell"))
    }
}
