//! The extension `metrics/1`: metrics that end with what they tell of, and histograms.
//!
//! What [`HostVtable::metric`](crate::HostVtable::metric) gives stays among the server's metrics until the process ends. A
//! *set* holds series that are shown from the moment at which they are added until it is closed; so a model opens one
//! when it is loaded and closes it when it is unloaded. Counting is a store or an addition in the host's memory, no call.
//!
//! ```text
//! counter, gauge   cell[0]                  the bits of an f64
//! histogram        cell[0 ..= bound_count]  u64: values up to each bound and above the one before; the last has no bound
//!                  cell[bound_count + 1]    the bits of an f64: the sum of all values
//! ```
//! All cells are read and written atomically, each by itself. Several open sets may have a series of one name and the same
//! labels, as while a model is loaded anew: then the one that was added last is shown.

use crate::{MetricCell, MetricKind, Status, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The id for [`HostVtable::extension`](crate::HostVtable::extension), which gives a pointer to a [`MetricsVtable`].
pub const METRICS_1: &str = "metrics/1";

/// A set of series; opaque to a backend.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct MetricSetHandle {
    private: [u8; 0],
}

/// A series that a backend wants to show.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct SeriesDesc {
    /// Set by the backend: what it has filled.
    pub struct_size: usize,
    /// A Prometheus name. A family has one kind; the help text is that of the first series.
    pub name: StrView,
    pub help: StrView,
    pub kind: MetricKind,
    /// 0.
    pub reserved: u32,
    /// `label_count` pairs: name, value, name, value … At most 64.
    pub labels: *const StrView,
    pub label_count: usize,
    /// Of a histogram: `bound_count` upper bounds, finite and ascending; 1 to 64.
    pub bounds: *const f64,
    pub bound_count: usize,
}

/// The host's half of `metrics/1`. All functions: `[any-thread]`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct MetricsVtable {
    pub struct_size: usize,
    /// An empty set, never null. `context` is `HostRef::context`. A set has at most 65536 series.
    pub open: unsafe extern "C" fn(context: *const c_void) -> *mut MetricSetHandle,
    /// Adds a series, which begins at zero. The description is lent. `out` becomes the first of its cells, which live until
    /// the set is closed. The same name and labels within a set give the same cells. INVALID_ARG for a name that is not
    /// Prometheus's, a second kind for one name, bounds that do not ascend or more than is allowed of anything.
    pub add: unsafe extern "C" fn(
        set: *mut MetricSetHandle,
        desc: *const SeriesDesc,
        out: *mut MetricCell,
    ) -> Status,
    /// Ends the set: its series are shown no more. The last use of `set` and of its cells.
    pub close: unsafe extern "C" fn(set: *mut MetricSetHandle),
}
