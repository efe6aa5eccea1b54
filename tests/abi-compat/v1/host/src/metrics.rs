//! The host's half of `metrics/1`: sets of series that are shown until they are closed.

use std::ffi::c_void;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_abi::{MetricCell, MetricKind, MetricSetHandle, MetricsVtable, SeriesDesc, Status as WireStatus};

use crate::services::MetricSet;
use crate::status::Status;
use crate::vtables::{answer, services};
use crate::wire::read;

/// Labels of a series, bounds of a histogram; more is a mistake.
const MAX_LIST: usize = 64;
/// Bytes of a description: what the first version of it has.
const SERIES_DESC: usize = std::mem::offset_of!(SeriesDesc, bound_count) + size_of::<usize>();
/// Series of a set.
const MAX_SERIES: usize = 65_536;

/// A series as a backend describes it.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// A Prometheus name.
    pub name: &'a str,
    pub help: &'a str,
    pub kind: MetricKind,
    pub labels: &'a [(&'a str, &'a str)],
    /// Of a histogram: upper bounds, finite and ascending; empty for the other kinds.
    pub bounds: &'a [f64],
}

/// An open set. The backend has the addresses of the cells, so they are kept here, whatever the services do.
struct Open {
    set: Box<dyn MetricSet>,
    cells: Mutex<Vec<Arc<[AtomicU64]>>>,
}

pub(crate) static METRICS: MetricsVtable =
    MetricsVtable { struct_size: size_of::<MetricsVtable>(), open, add, close };

unsafe extern "C" fn open(context: *const c_void) -> *mut MetricSetHandle {
    // SAFETY: the ABI demands the host's context.
    let set = unsafe { services(context) }.metric_set();
    Box::into_raw(Box::new(Open { set, cells: Mutex::default() })).cast()
}

unsafe extern "C" fn close(set: *mut MetricSetHandle) {
    if !set.is_null() {
        // SAFETY: the box that `open` made; closed once.
        drop(unsafe { Box::from_raw(set.cast::<Open>()) });
    }
}

unsafe extern "C" fn add(
    set: *mut MetricSetHandle,
    desc: *const SeriesDesc,
    out: *mut MetricCell,
) -> WireStatus {
    // SAFETY: the ABI demands an open set or null, and a whole description or null.
    let added = unsafe {
        match set.cast::<Open>().as_ref() {
            Some(open) => open.add(desc),
            None => Err(Status::invalid("the set of metrics is null")),
        }
    };
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { answer(out, added) }
}

impl Open {
    /// # Safety
    /// `desc` is null or whole, as far as its `struct_size` says.
    unsafe fn add(&self, desc: *const SeriesDesc) -> Result<MetricCell, Status> {
        // SAFETY: the size is the first field; the rest is read only if it reaches all of them.
        let desc = unsafe {
            if desc.is_null() || (*desc).struct_size < SERIES_DESC {
                return Err(Status::invalid("the description of a metric is null or too short"));
            }
            *desc
        };
        let missing = |null: bool, count: usize| count > MAX_LIST || (null && count > 0);
        if missing(desc.labels.is_null(), desc.label_count)
            || missing(desc.bounds.is_null(), desc.bound_count)
        {
            let (labels, bounds) = (desc.label_count, desc.bound_count);
            let text =
                format!("a metric with {labels} labels and {bounds} bounds; at most {MAX_LIST} of each");
            return Err(Status::invalid(text));
        }
        // SAFETY: by this function's contract; the lists have the lengths that stand beside them.
        let (texts, bounds, name, help) = unsafe {
            let texts: Vec<String> = (0..desc.label_count * 2).map(|at| read(*desc.labels.add(at))).collect();
            let bounds: Vec<f64> = (0..desc.bound_count).map(|at| *desc.bounds.add(at)).collect();
            (texts, bounds, read(desc.name), read(desc.help))
        };
        let labels: Vec<(&str, &str)> =
            texts.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        let is_histogram = desc.kind == MetricKind::HISTOGRAM;
        let ascend = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|bound| bound.is_finite());
        if is_histogram == bounds.is_empty() || !ascend {
            let text =
                format!("metric '{name}': histograms, and only they, have bounds, finite and ascending");
            return Err(Status::invalid(text));
        }
        let series = Series { name: &name, help: &help, kind: desc.kind, labels: &labels, bounds: &bounds };
        let mut kept = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_SERIES {
            return Err(Status::invalid(format!("the set has {MAX_SERIES} metrics already")));
        }
        let cells = self.set.add(&series)?;
        let needed = if is_histogram { bounds.len() + 2 } else { 1 };
        if cells.len() < needed {
            return Err(Status::internal(format!("metric '{name}' has {} cells, not {needed}", cells.len())));
        }
        let first = MetricCell(cells[0].as_ptr());
        kept.push(cells);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::services::HostServices;
    use crate::vtables::HostContext;
    use crate::wire::{take_text, view};
    use trireme_abi::{LogLevel, StatusCode};

    struct Services;

    impl HostServices for Services {
        fn log(&self, _: LogLevel, _: &str, _: &str) {}
        fn log_level(&self) -> &AtomicU32 {
            static LEVEL: AtomicU32 = AtomicU32::new(0);
            &LEVEL
        }
        fn metric(
            &self,
            _: &str,
            _: &str,
            _: MetricKind,
            _: &[(&str, &str)],
        ) -> Result<&'static AtomicU64, Status> {
            Err(Status::invalid("not in this test"))
        }
        fn now_ns(&self) -> u64 {
            0
        }
        fn extension(&self, _: &str) -> *const c_void {
            null()
        }
    }

    static CONTEXT: HostContext = HostContext { services: &Services, party: None };

    fn desc(bounds: &[f64]) -> SeriesDesc {
        SeriesDesc {
            struct_size: size_of::<SeriesDesc>(),
            name: view("m"),
            help: view("M."),
            kind: if bounds.is_empty() { MetricKind::GAUGE } else { MetricKind::HISTOGRAM },
            reserved: 0,
            labels: null(),
            label_count: 0,
            bounds: bounds.as_ptr(),
            bound_count: bounds.len(),
        }
    }

    #[test]
    fn cells_are_the_backends_to_write() {
        let bounds = [1.0, 2.0];
        // SAFETY: as a backend does it: opened, used, closed once; every pointer lives that long.
        unsafe {
            let set = open(std::ptr::from_ref(&CONTEXT).cast());
            let mut cell = MetricCell(null_mut());
            assert_eq!(add(set, &desc(&bounds), &mut cell).code, StatusCode::OK);
            for at in 0..4 {
                AtomicU64::from_ptr(cell.0.add(at)).fetch_add(1, Relaxed);
            }
            close(set);
            close(null_mut());
        }
    }

    #[test]
    fn what_is_no_description_is_refused() {
        // SAFETY: as above; what is wrong is what the host has to see.
        unsafe {
            let set = open(std::ptr::from_ref(&CONTEXT).cast());
            let refused = |set: *mut MetricSetHandle, desc: *const SeriesDesc| {
                let mut cell = MetricCell(null_mut());
                let status = add(set, desc, &mut cell);
                assert_eq!((status.code, cell.0), (StatusCode::INVALID_ARG, null_mut()));
                take_text(status.message)
            };
            let short = SeriesDesc { struct_size: 8, ..desc(&[]) };
            let endless = SeriesDesc { label_count: usize::MAX, ..desc(&[]) };
            let nowhere = SeriesDesc { label_count: 1, ..desc(&[]) };
            let flat = SeriesDesc { kind: MetricKind::HISTOGRAM, ..desc(&[]) };
            let bounded = SeriesDesc { kind: MetricKind::COUNTER, ..desc(&[1.0]) };
            for (wrong, said) in [
                (null(), "null or too short"),
                (std::ptr::from_ref(&short), "null or too short"),
                (&endless, "at most 64"),
                (&nowhere, "1 labels"),
                (&flat, "have bounds"),
                (&bounded, "only they"),
                (&desc(&[2.0, 1.0]), "ascending"),
                (&desc(&[1.0, 1.0]), "ascending"),
                (&desc(&[1.0, f64::INFINITY]), "finite"),
                (&desc(&[f64::NAN]), "finite"),
            ] {
                let text = refused(set, wrong);
                assert!(text.contains(said), "{said}: {text}");
            }
            assert!(refused(null_mut(), &desc(&[])).contains("null"));
            close(set);
        }
    }
}
