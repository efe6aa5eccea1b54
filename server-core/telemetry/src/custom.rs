//! What backends show: metrics for ever, and sets of metrics that end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::text::{braces, head};

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values counted by upper bounds.
    Histogram,
}

impl MetricKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Why a backend's metric was refused.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// Not `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    #[error(
        "'{0}' is not a metric or label name: letters, digits and underscores, not beginning with a digit"
    )]
    Name(String),
    /// A family has one kind and one help text.
    #[error("metric '{0}' is registered already with another kind")]
    Kind(String),
    /// The bounds of a series do not change.
    #[error("histogram '{0}' is registered already with other bounds")]
    Bounds(String),
    /// What the histogram itself says.
    #[error("histogram '{0}' cannot have the label 'le'")]
    Label(String),
}

type Labels = Vec<(String, String)>;

/// All that backends show.
#[derive(Default)]
pub(crate) struct Custom(BTreeMap<String, Family>);

struct Family {
    help: String,
    kind: MetricKind,
    /// By their labels, as they are shown.
    forever: BTreeMap<String, &'static AtomicU64>,
    /// Those with the same labels, the newest set last.
    ending: BTreeMap<String, Vec<Weak<Series>>>,
}

/// A series of a set.
struct Series {
    labels: Labels,
    bounds: Box<[f64]>,
    /// One, the bits of an `f64`; or of a histogram the counts, one more than bounds, and the bits of the sum.
    cells: Arc<[AtomicU64]>,
}

/// Metrics that are shown until the set is dropped.
pub struct MetricSet {
    registry: Arc<Mutex<Custom>>,
    series: Mutex<BTreeMap<(String, String), Arc<Series>>>,
}

impl Custom {
    pub(crate) fn forever(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, MetricError> {
        let labels = checked(name, labels)?;
        let family = self.family(name, help, kind)?;
        Ok(family.forever.entry(braces(&labels, None)).or_insert_with(|| Box::leak(Box::default())))
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricKind) -> Result<&mut Family, MetricError> {
        let fresh =
            || Family { help: help.to_owned(), kind, forever: BTreeMap::new(), ending: BTreeMap::new() };
        let family = match self.0.entry(name.to_owned()) {
            Entry::Vacant(place) => place.insert(fresh()),
            Entry::Occupied(place) => {
                let family = place.into_mut();
                family.forget_ended();
                if family.is_empty() {
                    *family = fresh();
                }
                family
            }
        };
        if family.kind != kind {
            return Err(MetricError::Kind(name.to_owned()));
        }
        Ok(family)
    }

    /// The value of a gauge or counter of a set, by all of its labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let key = braces(&checked(name, labels).ok()?, None);
        let family = self.0.get(name).filter(|family| family.kind != MetricKind::Histogram)?;
        let newest = family.ending.get(&key)?.iter().rev().find_map(Weak::upgrade)?;
        Some(f64::from_bits(newest.cells[0].load(Relaxed)))
    }

    /// Writes all families, and forgets what has ended.
    pub(crate) fn write(&mut self, out: &mut String) {
        self.0.retain(|name, family| {
            family.forget_ended();
            if family.is_empty() {
                return false;
            }
            head(out, name, &family.help, family.kind.name());
            for (labels, cell) in &family.forever {
                let _ = writeln!(out, "{name}{labels} {}", number(cell));
            }
            let newest =
                family.ending.iter().filter_map(|(labels, all)| Some((labels, all.last()?.upgrade()?)));
            for (labels, series) in newest.filter(|(labels, _)| !family.forever.contains_key(*labels)) {
                match family.kind {
                    MetricKind::Histogram => series.write_histogram(out, name),
                    _ => drop(writeln!(out, "{name}{labels} {}", number(&series.cells[0]))),
                }
            }
            true
        });
    }
}

impl Family {
    fn forget_ended(&mut self) {
        self.ending.retain(|_, all| {
            all.retain(|series| series.strong_count() > 0);
            !all.is_empty()
        });
    }

    fn is_empty(&self) -> bool {
        self.forever.is_empty() && self.ending.is_empty()
    }
}

impl Series {
    fn write_histogram(&self, out: &mut String, name: &str) {
        let mut count = 0;
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, cell) in bounds.zip(&*self.cells) {
            count += cell.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{} {count}", braces(&self.labels, Some(("le", &bound))));
        }
        let (labels, sum) = (braces(&self.labels, None), number(&self.cells[self.bounds.len() + 1]));
        let _ = writeln!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
    }
}

impl MetricSet {
    pub(crate) fn new(registry: &Arc<Mutex<Custom>>) -> Self {
        Self { registry: Arc::clone(registry), series: Mutex::default() }
    }

    /// Adds a series, which begins at zero. Counters and gauges have one cell, the bits of an `f64`; histograms with `n`
    /// bounds, which are finite and ascending, have `n + 1` counts and then the bits of the sum. The same name and labels
    /// give the same cells.
    ///
    /// # Errors
    /// A name that Prometheus does not allow, a second kind for one name, other bounds for one series.
    pub fn add(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Arc<[AtomicU64]>, MetricError> {
        let labels = checked(name, labels)?;
        if kind == MetricKind::Histogram && labels.iter().any(|(key, _)| key == "le") {
            return Err(MetricError::Label(name.to_owned()));
        }
        let key = braces(&labels, None);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let family = registry.family(name, help, kind)?;
        let mut mine = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        match mine.entry((name.to_owned(), key.clone())) {
            Entry::Occupied(there) if *there.get().bounds != *bounds => {
                Err(MetricError::Bounds(name.to_owned()))
            }
            Entry::Occupied(there) => Ok(Arc::clone(&there.get().cells)),
            Entry::Vacant(place) => {
                let cells: Arc<[AtomicU64]> = match kind {
                    MetricKind::Histogram => (0..bounds.len() + 2).map(|_| AtomicU64::new(0)).collect(),
                    _ => Arc::new([AtomicU64::new(0)]),
                };
                let series = Arc::new(Series { labels, bounds: bounds.into(), cells: Arc::clone(&cells) });
                family.ending.entry(key).or_default().push(Arc::downgrade(&series));
                place.insert(series);
                Ok(cells)
            }
        }
    }
}

/// The bits of an `f64`, as Prometheus reads them.
fn number(cell: &AtomicU64) -> String {
    match f64::from_bits(cell.load(Relaxed)) {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// The labels in the order in which they are shown.
fn checked(name: &str, labels: &[(&str, &str)]) -> Result<Labels, MetricError> {
    for name in labels.iter().map(|(key, _)| *key).chain([name]) {
        let rest = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(rest) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(MetricError::Name(name.to_owned()));
        }
    }
    let mut labels: Labels =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    labels.sort();
    Ok(labels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Registry;

    const MODEL: &[(&str, &str)] = &[("version", "1"), ("model", "m")];

    fn set(cell: &AtomicU64, value: f64) {
        cell.store(value.to_bits(), Relaxed);
    }

    #[test]
    fn the_same_metric_is_one_cell() {
        let registry = Registry::new(false);
        let a = registry.custom("x_total", "X.", MetricKind::Counter, &[("b", "1"), ("a", "2")]).unwrap();
        let b = registry.custom("x_total", "X.", MetricKind::Counter, &[("a", "2"), ("b", "1")]).unwrap();
        set(a, 2.5);
        assert!(std::ptr::eq(a, b));
        assert!(registry.render().contains("x_total{a=\"2\",b=\"1\"} 2.5"));
        assert!(registry.custom("x_total", "", MetricKind::Gauge, &[]).is_err());
        assert!(registry.custom("x-total", "", MetricKind::Gauge, &[]).is_err());
    }

    #[test]
    fn a_set_is_shown_until_it_is_dropped() {
        let registry = Registry::new(false);
        let metrics = registry.set();
        let gauge = metrics.add("y", "Y.", MetricKind::Gauge, MODEL, &[]).unwrap();
        let times = metrics.add("z_seconds", "Z.", MetricKind::Histogram, MODEL, &[0.5, 2.0]).unwrap();
        set(&gauge[0], -3.0);
        assert_eq!(registry.value("y", &[("model", "m"), ("version", "1")]), Some(-3.0));
        assert_eq!(registry.value("y", &[("model", "m")]), None);
        assert_eq!(registry.value("z_seconds", MODEL), None, "it has no single value");
        [4, 0, 1].into_iter().zip(&*times).for_each(|(count, cell)| cell.store(count, Relaxed));
        set(&times[3], 7.25);
        expect_test::expect![[r#"
            # HELP y Y.
            # TYPE y gauge
            y{model="m",version="1"} -3
            # HELP z_seconds Z.
            # TYPE z_seconds histogram
            z_seconds_bucket{le="0.5",model="m",version="1"} 4
            z_seconds_bucket{le="2",model="m",version="1"} 4
            z_seconds_bucket{le="+Inf",model="m",version="1"} 5
            z_seconds_sum{model="m",version="1"} 7.25
            z_seconds_count{model="m",version="1"} 5
        "#]]
        .assert_eq(&registry.render());
        assert!(Arc::ptr_eq(&gauge, &metrics.add("y", "", MetricKind::Gauge, MODEL, &[]).unwrap()));
        drop(metrics);
        assert_eq!(registry.render(), "");
        assert_eq!(registry.value("y", MODEL), None);
        // A family that has ended may come again as another kind.
        let metrics = registry.set();
        metrics.add("y", "Y anew.", MetricKind::Counter, &[], &[]).unwrap();
        assert_eq!(registry.render(), "# HELP y Y anew.\n# TYPE y counter\ny 0\n");
    }

    #[test]
    fn the_newest_of_two_is_shown_and_the_other_when_it_is_gone() {
        let registry = Registry::new(false);
        let (old, new) = (registry.set(), registry.set());
        for (metrics, value) in [(&old, 1.0), (&new, 2.0)] {
            set(&metrics.add("y", "Y.", MetricKind::Gauge, MODEL, &[]).unwrap()[0], value);
        }
        let shown = || registry.render().lines().nth(2).unwrap().to_owned();
        assert_eq!(shown(), "y{model=\"m\",version=\"1\"} 2");
        drop(new);
        assert_eq!(shown(), "y{model=\"m\",version=\"1\"} 1");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let registry = Registry::new(false);
        let metrics = registry.set();
        metrics.add("h", "H.", MetricKind::Histogram, &[], &[1.0]).unwrap();
        let refused = |name, kind, labels: &[(&str, &str)], bounds: &[f64]| {
            metrics.add(name, "", kind, labels, bounds).unwrap_err().to_string()
        };
        for (error, text) in [
            (refused("h", MetricKind::Gauge, &[], &[]), "metric 'h' is registered already with another kind"),
            (
                refused("h", MetricKind::Histogram, &[], &[2.0]),
                "histogram 'h' is registered already with other bounds",
            ),
            (
                refused("h", MetricKind::Histogram, &[("le", "1")], &[1.0]),
                "histogram 'h' cannot have the label 'le'",
            ),
        ] {
            assert_eq!(error, text);
        }
        assert!(refused("1h", MetricKind::Gauge, &[], &[]).starts_with("'1h' is not a metric"));
        assert!(registry.custom("h", "", MetricKind::Counter, &[]).is_err());
    }
}
