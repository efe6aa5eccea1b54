//! The metrics of models in Prometheus' text form, under the names that dashboards of the field know.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::histogram::Histogram;
use crate::model::{FailureReason, ModelMetrics, Summaries};
use crate::options::MetricOptions;
use crate::summary::Summary;
use crate::text::{braces, head};

type Models = [Arc<ModelMetrics>];
type Value = fn(&ModelMetrics) -> u64;
type Of = fn(&Summaries) -> &Summary;
type Kept = fn(&ModelMetrics) -> Option<&Histogram>;

const SUCCESS: (&str, &str, Value) =
    ("nv_inference_request_success", "Number of successful inference requests, all batch sizes", |m| {
        m.success.load(Relaxed)
    });

const COUNTS: &[(&str, &str, Value)] = &[
    ("nv_inference_count", "Number of inferences performed (does not include cached requests)", |m| {
        m.inferences.load(Relaxed)
    }),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        |m| m.executions.load(Relaxed),
    ),
];

/// Kept unless `counter_latencies=false`.
const LATENCIES: &[(&str, &str, Value)] = &[
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        |m| m.request_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        |m| m.queue_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        |m| m.compute_input_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        |m| m.compute_infer_ns.load(Relaxed) / 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        |m| m.compute_output_ns.load(Relaxed) / 1000,
    ),
];

const SUMMARIES: &[(&str, &str, Of)] = &[
    (
        "nv_inference_request_summary_us",
        "Summary of inference request duration in microseconds (includes cached requests)",
        |s| &s.request,
    ),
    (
        "nv_inference_queue_summary_us",
        "Summary of inference queuing duration in microseconds (includes cached requests)",
        |s| &s.queue,
    ),
    (
        "nv_inference_compute_input_summary_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        |s| &s.compute_input,
    ),
    (
        "nv_inference_compute_infer_summary_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        |s| &s.compute_infer,
    ),
    (
        "nv_inference_compute_output_summary_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        |s| &s.compute_output,
    ),
];

const HISTOGRAMS: &[(&str, &str, Kept)] = &[
    (
        "nv_inference_first_response_histogram_ms",
        "Duration from request to first response in milliseconds",
        |m| m.first_response.get(),
    ),
    (
        "trireme_queue_duration_ms",
        "How long answered requests waited for an instance, in milliseconds",
        |m| m.queue.as_ref(),
    ),
];

/// Writes every family that has a value; `now` is the monotonic time in nanoseconds.
pub(crate) fn write(out: &mut String, models: &Models, options: &MetricOptions, now: u64) {
    if models.is_empty() {
        return;
    }
    counter(out, models, &SUCCESS);
    failures(out, models);
    COUNTS.iter().for_each(|family| counter(out, models, family));
    if options.counters {
        LATENCIES.iter().for_each(|family| counter(out, models, family));
    }
    let name = "nv_inference_pending_request_count";
    head(out, name, "Instantaneous number of pending requests awaiting execution per-model.", "gauge");
    for model in models {
        let pending = model.pending_request_count.load(Relaxed);
        let _ = writeln!(out, "{name}{} {pending}", braces(&model.labels, None));
    }
    let name = "nv_model_load_duration_secs";
    head(out, name, "Model load time in seconds", "gauge");
    for model in models {
        let seconds = f64::from_bits(model.load_secs.load(Relaxed));
        let _ = writeln!(out, "{name}{} {seconds:.6}", braces(&model.labels, None));
    }
    let name = "trireme_running_request_count";
    head(out, name, "Requests that an instance has taken and not answered wholly", "gauge");
    for model in models {
        let running = model.running_request_count.load(Relaxed);
        let _ = writeln!(out, "{name}{} {running}", braces(&model.labels, None));
    }
    for (name, help, of) in HISTOGRAMS {
        histograms(out, models, (name, help), *of);
    }
    summaries(out, models, options, now);
}

fn counter(out: &mut String, models: &Models, (name, help, value): &(&str, &str, Value)) {
    head(out, name, help, "counter");
    for model in models {
        let _ = writeln!(out, "{name}{} {}", braces(&model.labels, None), value(model));
    }
}

fn failures(out: &mut String, models: &Models) {
    let name = "nv_inference_request_failure";
    head(out, name, "Number of failed inference requests, all batch sizes", "counter");
    for model in models {
        for (reason, count) in FailureReason::ALL.iter().zip(&model.failure) {
            let labels = braces(&model.labels, Some(("reason", reason.label())));
            let _ = writeln!(out, "{name}{labels} {}", count.load(Relaxed));
        }
    }
}

fn histograms(out: &mut String, models: &Models, (name, help): (&str, &str), of: Kept) {
    let all = models.iter().filter_map(|model| Some((model, of(model)?)));
    for (at, (model, histogram)) in all.enumerate() {
        if at == 0 {
            head(out, name, help, "histogram");
        }
        let mut count = 0;
        for (bound, up_to) in histogram.buckets() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let labels = braces(&model.labels, Some(("le", &bound)));
            let _ = writeln!(out, "{name}_bucket{labels} {up_to}");
            count = up_to;
        }
        let labels = braces(&model.labels, None);
        let _ = writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {count}", histogram.sum_ms());
    }
}

fn summaries(out: &mut String, models: &Models, options: &MetricOptions, now: u64) {
    for (name, help, of) in SUMMARIES.iter().filter(|_| options.summaries) {
        let kept = models
            .iter()
            .filter_map(|model| Some((model.labels.as_slice(), of(model.summaries.as_deref()?))));
        summary(out, (name, help), kept, options, now);
    }
}

/// One family of summaries: of each model its labels and what it kept.
pub(crate) fn summary<'a>(
    out: &mut String,
    (name, help): (&str, &str),
    kept: impl Iterator<Item = (&'a [(String, String)], &'a Summary)>,
    options: &MetricOptions,
    now: u64,
) {
    head(out, name, help, "summary");
    for (labels, summary) in kept {
        for (share, value) in options.quantiles.iter().zip(summary.quantiles(&options.quantiles, now)) {
            let labels = braces(labels, Some(("quantile", &share.to_string())));
            let _ = writeln!(out, "{name}{labels} {value}");
        }
        let (count, sum) = summary.totals();
        let labels = braces(labels, None);
        let _ = writeln!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
    }
}
