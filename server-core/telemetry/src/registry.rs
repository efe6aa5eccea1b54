use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::machine;
use crate::model::{FailureReason, ModelMetrics};

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
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
}

struct Family {
    help: String,
    kind: MetricKind,
    cells: BTreeMap<String, &'static AtomicU64>,
}

/// All metrics of a server.
pub struct Registry {
    models: Mutex<Vec<Weak<ModelMetrics>>>,
    custom: Mutex<BTreeMap<String, Family>>,
    machine: Option<machine::Machine>,
}

type Value = fn(&ModelMetrics) -> u64;

/// The counters of a model, in the order in which they are shown: name, help, value.
const COUNTERS: &[(&str, &str, Value)] = &[
    (
        "nv_inference_request_success",
        "Inference requests that were answered well, whatever their batch size",
        |m| m.success.load(Relaxed),
    ),
    (
        "nv_inference_count",
        "Inferences computed: a request counts once for each element of its batch; answers from a cache do not count",
        |m| m.inferences.load(Relaxed),
    ),
    (
        "nv_inference_exec_count",
        "Batches that the model has executed; answers from a cache do not count",
        |m| m.executions.load(Relaxed),
    ),
    (
        "nv_inference_request_duration_us",
        "Microseconds from acceptance to the last answer, summed over requests, with those from a cache",
        |m| m.request_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Microseconds that requests waited for an instance, summed, with those from a cache",
        |m| m.queue_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Microseconds of preparing inputs, summed over requests; answers from a cache do not count",
        |m| m.compute_input_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Microseconds of computing, summed over requests; answers from a cache do not count",
        |m| m.compute_infer_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Microseconds of making outputs, summed over requests; answers from a cache do not count",
        |m| m.compute_output_ns.load(Relaxed) / 1000,
    ),
];

impl Registry {
    /// An empty registry; `cpu` adds the metrics of the machine.
    pub fn new(cpu: bool) -> Self {
        Self {
            models: Mutex::default(),
            custom: Mutex::default(),
            machine: cpu.then(machine::Machine::default),
        }
    }

    /// The counters of a model version. They are shown as long as somebody holds them.
    pub fn model(&self, name: &str, version: i64, tags: &[(String, String)]) -> Arc<ModelMetrics> {
        let mut labels =
            vec![("model".to_owned(), name.to_owned()), ("version".to_owned(), version.to_string())];
        labels.extend(tags.iter().map(|(key, value)| (format!("_{key}"), value.clone())));
        labels.sort();
        let metrics = Arc::new(ModelMetrics { labels, ..ModelMetrics::default() });
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.strong_count() > 0);
        models.push(Arc::downgrade(&metrics));
        metrics
    }

    /// A backend's own metric: the bits of an `f64`. The same name and labels give the same cell.
    ///
    /// # Errors
    /// A name that Prometheus does not allow, or a second kind for one name.
    pub fn custom(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, MetricError> {
        for name in labels.iter().map(|(key, _)| *key).chain([name]) {
            let rest = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if name.is_empty() || !name.chars().all(rest) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(MetricError::Name(name.to_owned()));
            }
        }
        let mut labels: Vec<_> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        let family = custom.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            cells: BTreeMap::new(),
        });
        if family.kind != kind {
            return Err(MetricError::Kind(name.to_owned()));
        }
        Ok(family.cells.entry(braces(&labels, None)).or_insert_with(|| Box::leak(Box::default())))
    }

    /// Everything in Prometheus' text form.
    pub fn render(&self) -> String {
        let models: Vec<_> = {
            let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            models.iter().filter_map(Weak::upgrade).collect()
        };
        let mut out = String::new();
        for (at, (name, help, value)) in COUNTERS.iter().enumerate() {
            head(&mut out, name, help, MetricKind::Counter);
            for model in &models {
                let _ = writeln!(out, "{name}{} {}", braces(&model.labels, None), value(model));
            }
            if at == 0 {
                failures(&mut out, &models);
            }
        }
        let name = "nv_inference_pending_request_count";
        head(&mut out, name, "Requests that no instance has taken yet", MetricKind::Gauge);
        for model in &models {
            let pending = model.pending_request_count.load(Relaxed);
            let _ = writeln!(out, "{name}{} {pending}", braces(&model.labels, None));
        }
        let name = "nv_model_load_duration_secs";
        head(&mut out, name, "Seconds that the model took to load", MetricKind::Gauge);
        for model in &models {
            let seconds = f64::from_bits(model.load_secs.load(Relaxed));
            let _ = writeln!(out, "{name}{} {seconds:.6}", braces(&model.labels, None));
        }
        crate::cache::write(&mut out, &models);
        if let Some(machine) = &self.machine {
            for (name, help, value) in machine.read() {
                head(&mut out, name, help, MetricKind::Gauge);
                let _ = writeln!(out, "{name} {value}");
            }
        }
        for (name, family) in &*self.custom.lock().unwrap_or_else(PoisonError::into_inner) {
            head(&mut out, name, &family.help, family.kind);
            for (labels, cell) in &family.cells {
                let _ = writeln!(out, "{name}{labels} {}", f64::from_bits(cell.load(Relaxed)));
            }
        }
        out
    }
}

fn failures(out: &mut String, models: &[Arc<ModelMetrics>]) {
    let name = "nv_inference_request_failure";
    head(
        out,
        name,
        "Inference requests that failed, by reason, whatever their batch size",
        MetricKind::Counter,
    );
    for model in models {
        for (reason, count) in FailureReason::ALL.iter().zip(&model.failure) {
            let labels = braces(&model.labels, Some(("reason", reason.label())));
            let _ = writeln!(out, "{name}{labels} {}", count.load(Relaxed));
        }
    }
}

pub(crate) fn head(out: &mut String, name: &str, help: &str, kind: MetricKind) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let kind = match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    };
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(crate) fn braces(labels: &[(String, String)], more: Option<(&str, &str)>) -> String {
    let mut all: Vec<(&str, &str)> =
        labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(more).collect();
    all.sort_unstable();
    if all.is_empty() {
        return String::new();
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = all.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_alphabetical_and_failures_begin_at_zero() {
        let registry = Registry::new(false);
        let model = registry.model("m", 3, &[("site".to_owned(), "a\"b".to_owned())]);
        model.count_failure(FailureReason::Rejected);
        let text = registry.render();
        assert!(text.contains(
            "nv_inference_request_failure{_site=\"a\\\"b\",model=\"m\",reason=\"REJECTED\",version=\"3\"} 1"
        ));
        assert!(text.contains("reason=\"OTHER\",version=\"3\"} 0"));
        drop(model);
        assert!(!registry.render().contains("model=\"m\""));
    }

    #[test]
    fn the_same_custom_metric_is_one_cell() {
        let registry = Registry::new(false);
        let a = registry.custom("x_total", "X.", MetricKind::Counter, &[("b", "1"), ("a", "2")]).unwrap();
        let b = registry.custom("x_total", "X.", MetricKind::Counter, &[("a", "2"), ("b", "1")]).unwrap();
        a.store(2.5f64.to_bits(), Relaxed);
        assert!(std::ptr::eq(a, b));
        assert!(registry.render().contains("x_total{a=\"2\",b=\"1\"} 2.5"));
        assert!(registry.custom("x_total", "", MetricKind::Gauge, &[]).is_err());
        assert!(registry.custom("x-total", "", MetricKind::Gauge, &[]).is_err());
    }
}
