//! Values among the server's metrics.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trireme_abi::{METRICS_1, MetricCell, MetricKind, MetricSetHandle, MetricsVtable, SeriesDesc};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::wire::{check, view};

/// Where a metric's value is kept, in the server's memory.
#[derive(Clone)]
struct Cells {
    first: NonNull<AtomicU64>,
    len: usize,
    /// None: they live until the process ends.
    _set: Option<Arc<Handle>>,
}

// SAFETY: the cells are read and written atomically only, and live as long as this value, which keeps their set open.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    fn get(&self) -> &[AtomicU64] {
        // SAFETY: the host gave `len` cells, which live as long as the set, and so as long as this value.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }

    fn set(&self, at: usize, value: f64) {
        self.get()[at].store(value.to_bits(), Relaxed);
    }

    fn add(&self, at: usize, amount: f64) {
        let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        let _ = self.get()[at].fetch_update(Relaxed, Relaxed, add);
    }

    fn value(&self, at: usize) -> f64 {
        f64::from_bits(self.get()[at].load(Relaxed))
    }
}

/// A value that only grows.
#[derive(Clone)]
pub struct Counter(Cells);

impl Counter {
    /// # Safety
    /// The cell lives until the process ends.
    pub(crate) unsafe fn forever(cell: NonNull<AtomicU64>) -> Self {
        Self(Cells { first: cell, len: 1, _set: None })
    }

    /// Adds to it.
    pub fn add(&self, amount: f64) {
        self.0.add(0, amount);
    }

    /// Makes it what was counted elsewhere.
    pub fn set(&self, total: f64) {
        self.0.set(0, total);
    }

    /// What it has come to.
    pub fn value(&self) -> f64 {
        self.0.value(0)
    }
}

/// A value that goes up and down.
#[derive(Clone)]
pub struct Gauge(Cells);

impl Gauge {
    /// # Safety
    /// The cell lives until the process ends.
    pub(crate) unsafe fn forever(cell: NonNull<AtomicU64>) -> Self {
        Self(Cells { first: cell, len: 1, _set: None })
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.set(0, value);
    }

    /// Adds to it; a negative amount takes away.
    pub fn add(&self, amount: f64) {
        self.0.add(0, amount);
    }

    /// What it is.
    pub fn value(&self) -> f64 {
        self.0.value(0)
    }
}

/// Values counted by upper bounds.
#[derive(Clone)]
pub struct Histogram {
    cells: Cells,
    bounds: Arc<[f64]>,
}

impl Histogram {
    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.cells.get()[at].fetch_add(1, Relaxed);
        self.cells.add(self.bounds.len() + 1, value);
    }

    /// Makes it what was counted elsewhere: `counts` are the values up to each bound and above the one before, then those
    /// above all bounds; `sum` is that of all values. Counts beyond these are not looked at.
    pub fn set(&self, counts: &[u64], sum: f64) {
        let cells = self.cells.get().iter().take(self.bounds.len() + 1);
        cells.zip(counts).for_each(|(cell, count)| cell.store(*count, Relaxed));
        self.cells.set(self.bounds.len() + 1, sum);
    }
}

macro_rules! debug {
    ($($name:ident: $value:expr;)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value: fn(&Self) -> f64 = $value;
                f.debug_tuple(stringify!($name)).field(&value(self)).finish()
            }
        })*
    };
}

debug! {
    Counter: |one| one.0.value(0);
    Gauge: |one| one.0.value(0);
    Histogram: |one| one.cells.value(one.bounds.len() + 1);
}

/// Metrics that are shown as long as somebody holds the set or one of them; so a model keeps a set of its own, and its
/// metrics go when it is unloaded. Cheap to clone.
#[derive(Clone)]
pub struct MetricSet(Arc<Handle>);

impl fmt::Debug for MetricSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricSet")
    }
}

struct Handle {
    handle: *mut MetricSetHandle,
    table: &'static MetricsVtable,
}

// SAFETY: the ABI allows all calls from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above, also concurrently.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: owned by this value; the last call. Who uses a cell holds this value.
        unsafe { (self.table.close)(self.handle) };
    }
}

impl MetricSet {
    pub(crate) fn open(host: &Host, context: *const c_void) -> Result<Self> {
        let table = host.extension(METRICS_1).cast::<MetricsVtable>();
        // SAFETY: the host gives its table, which lives until the process ends, or null.
        let table = unsafe { table.as_ref() };
        let table = table.ok_or_else(|| Error::unsupported("this server has no metrics that end"))?;
        // SAFETY: the context is the host's.
        let handle = unsafe { (table.open)(context) };
        Ok(Self(Arc::new(Handle { handle, table })))
    }

    /// A counter. The same name and labels give the same counter.
    ///
    /// # Errors
    /// A name that Prometheus does not allow, or one that has another kind already; so for the others.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        self.add(name, help, MetricKind::COUNTER, labels, &[]).map(Counter)
    }

    /// A gauge.
    ///
    /// # Errors
    /// See [`MetricSet::counter`].
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        self.add(name, help, MetricKind::GAUGE, labels, &[]).map(Gauge)
    }

    /// A histogram with these upper bounds, finite and ascending; that of all other values is added.
    ///
    /// # Errors
    /// See [`MetricSet::counter`].
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Histogram> {
        let cells = self.add(name, help, MetricKind::HISTOGRAM, labels, bounds)?;
        Ok(Histogram { cells, bounds: bounds.into() })
    }

    fn add(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Cells> {
        let flat: Vec<_> = labels.iter().flat_map(|(key, value)| [view(key), view(value)]).collect();
        let desc = SeriesDesc {
            struct_size: size_of::<SeriesDesc>(),
            name: view(name),
            help: view(help),
            kind,
            reserved: 0,
            labels: flat.as_ptr(),
            label_count: labels.len(),
            bounds: bounds.as_ptr(),
            bound_count: bounds.len(),
        };
        let mut cell = MetricCell(std::ptr::null_mut());
        // SAFETY: the set is open; the description lives until the call returns.
        unsafe { check((self.0.table.add)(self.0.handle, &desc, &mut cell))? };
        let first = NonNull::new(cell.0.cast()).ok_or_else(|| Error::internal("the server gave no cell"))?;
        let len = if bounds.is_empty() { 1 } else { bounds.len() + 2 };
        Ok(Cells { first, len, _set: Some(Arc::clone(&self.0)) })
    }
}
