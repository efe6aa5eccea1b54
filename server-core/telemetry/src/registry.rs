use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::clock::now_ns;
use crate::custom::{Custom, MetricError, MetricKind, MetricSet};
use crate::histogram::{Histogram, QUEUE_MS};
use crate::model::ModelMetrics;
use crate::options::MetricOptions;
use crate::text::head;
use crate::{families, machine};

/// All metrics of a server.
pub struct Registry {
    models: Mutex<Vec<Weak<ModelMetrics>>>,
    custom: Arc<Mutex<Custom>>,
    machine: Option<machine::Machine>,
    options: MetricOptions,
}

impl Registry {
    /// An empty registry; `cpu` adds the metrics of the machine.
    pub fn new(cpu: bool) -> Self {
        Self::with_options(MetricOptions { cpu, ..MetricOptions::default() })
    }

    /// An empty registry that keeps what the options say.
    pub fn with_options(options: MetricOptions) -> Self {
        let machine = options.cpu.then(machine::Machine::default);
        Self { models: Mutex::default(), custom: Arc::default(), machine, options }
    }

    /// The counters of a model version. They are shown as long as somebody holds them.
    pub fn model(&self, name: &str, version: i64, tags: &[(String, String)]) -> Arc<ModelMetrics> {
        let mut labels =
            vec![("model".to_owned(), name.to_owned()), ("version".to_owned(), version.to_string())];
        labels.extend(tags.iter().map(|(key, value)| (format!("_{key}"), value.clone())));
        labels.sort();
        let metrics = Arc::new(ModelMetrics {
            labels,
            summaries: self.options.summaries.then(Box::default),
            keeps_first_response: self.options.histograms,
            queue: self.options.histograms.then(|| Histogram::new(&QUEUE_MS)),
            ..ModelMetrics::default()
        });
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
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).forever(name, help, kind, labels)
    }

    /// An empty set of backends' metrics, shown until it is dropped.
    pub fn set(&self) -> MetricSet {
        MetricSet::new(&self.custom)
    }

    /// What a gauge or a counter of a set shows, by all of its labels in any order; none if nobody shows it.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).value(name, labels)
    }

    /// Everything in Prometheus' text form.
    pub fn render(&self) -> String {
        let models: Vec<_> = {
            let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            models.iter().filter_map(Weak::upgrade).collect()
        };
        let mut out = String::new();
        let now = now_ns();
        families::write(&mut out, &models, &self.options, now);
        crate::cache::write(&mut out, &models, &self.options, now);
        if let Some(machine) = &self.machine {
            for (name, help, value) in machine.read() {
                head(&mut out, name, help, "gauge");
                let _ = writeln!(out, "{name} {value}");
            }
        }
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{FailureReason, RequestTimes};

    fn names(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect()
    }

    #[test]
    fn families_are_those_of_upstream() {
        let registry = Registry::new(false);
        assert_eq!(registry.render(), "");
        let model = registry.model("m", 1, &[]);
        expect_test::expect![[r#"
            nv_inference_request_success counter
            nv_inference_request_failure counter
            nv_inference_count counter
            nv_inference_exec_count counter
            nv_inference_request_duration_us counter
            nv_inference_queue_duration_us counter
            nv_inference_compute_input_duration_us counter
            nv_inference_compute_infer_duration_us counter
            nv_inference_compute_output_duration_us counter
            nv_inference_pending_request_count gauge
            nv_model_load_duration_secs gauge
            trireme_running_request_count gauge"#]]
        .assert_eq(&names(&registry.render()).join("\n"));
        drop(model);
    }

    #[test]
    fn options_add_summaries_and_histograms_and_take_counters_away() {
        let options =
            MetricOptions { counters: false, summaries: true, histograms: true, ..MetricOptions::default() };
        let registry = Registry::with_options(options);
        let model = registry.model("m", 1, &[]);
        model.set_first_response_bounds(Some(&[1.0, 2.5]));
        model.observe_first_response(2_000_000);
        model.count_success(&RequestTimes {
            batch_size: 1,
            total_ns: 20_000,
            queue_ns: 5_000,
            compute_input_ns: 0,
            compute_infer_ns: 10_000,
            compute_output_ns: 0,
        });
        let text = registry.render();
        let all = names(&text);
        assert!(all.contains(&"nv_inference_request_summary_us summary"));
        assert!(all.contains(&"nv_inference_first_response_histogram_ms histogram"));
        assert!(!all.contains(&"nv_inference_request_duration_us counter"));
        for line in [
            "nv_inference_request_summary_us{model=\"m\",quantile=\"0.999\",version=\"1\"} 20",
            "nv_inference_request_summary_us_sum{model=\"m\",version=\"1\"} 20",
            "nv_inference_queue_summary_us_count{model=\"m\",version=\"1\"} 1",
            "trireme_queue_duration_ms_bucket{le=\"1\",model=\"m\",version=\"1\"} 1",
            "trireme_queue_duration_ms_count{model=\"m\",version=\"1\"} 1",
            "nv_inference_first_response_histogram_ms_bucket{le=\"1\",model=\"m\",version=\"1\"} 0",
            "nv_inference_first_response_histogram_ms_bucket{le=\"2.5\",model=\"m\",version=\"1\"} 1",
            "nv_inference_first_response_histogram_ms_bucket{le=\"+Inf\",model=\"m\",version=\"1\"} 1",
            "nv_inference_first_response_histogram_ms_sum{model=\"m\",version=\"1\"} 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }

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
}
