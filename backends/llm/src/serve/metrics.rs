//! What an engine shows among the server's metrics: the families of TensorRT-LLM's backend, and our own.

use trireme_sdk::{Counter, Gauge, Histogram, ModelContext, Result};

use crate::engine::{CoreStats, Tally, bounds};
use crate::executor::MemoryUse;

type Now = fn(&CoreStats) -> f64;
type Total = fn(&CoreStats, &Tally) -> u64;
type Values = for<'a> fn(&'a Tally) -> &'a crate::engine::Histogram;

/// Family, HELP, the name of the third label, and for each of its values where the number is found.
type Labelled = (&'static str, &'static str, &'static str, &'static [(&'static str, Now)]);

const UPSTREAM: &[Labelled] = &[
    (
        "nv_trt_llm_request_metrics",
        "TRT LLM request metrics",
        "request_type",
        &[
            ("active", |s| (s.running + s.waiting) as f64),
            ("max", |s| s.slots as f64),
            ("scheduled", |s| s.running as f64),
            ("context", |s| s.step.prompts as f64),
            ("waiting", |s| s.waiting as f64),
        ],
    ),
    (
        "nv_trt_llm_kv_cache_block_metrics",
        "TRT LLM KV cache block metrics",
        "kv_cache_block_type",
        &[
            ("max", |s| s.kv.blocks as f64),
            ("free", |s| s.kv.free as f64),
            ("used", |s| s.kv.used as f64),
            ("tokens_per", |s| s.block_tokens as f64),
            ("reused", |s| s.kv.reused as f64),
            ("fraction", |s| s.kv.used as f64 / s.kv.blocks.max(1) as f64),
        ],
    ),
    (
        "nv_trt_llm_inflight_batcher_metrics",
        "TRT LLM inflight_batcher-specific metrics",
        "inflight_batcher_specific_metric",
        &[
            ("total_context_tokens", |s| s.step.prompt_tokens as f64),
            ("generation_requests", |s| s.step.decodes as f64),
            ("micro_batch_id", |_| 0.0),
            ("paused_requests", |s| s.preempted as f64),
        ],
    ),
    (
        "nv_trt_llm_general_metrics",
        "General TRT LLM metrics",
        "general_type",
        &[("iteration_counter", |s| s.steps as f64)],
    ),
];

const MEMORY: (&str, &str, &str) =
    ("nv_trt_llm_runtime_memory_metrics", "TRT LLM runtime memory metrics", "memory_type");

const LENGTHS: &[(&str, &str, &str, Values)] = &[
    ("nv_llm_input_token_len", "TRT LLM response metrics", "total_input_tokens", |t| &t.prompt_lengths),
    ("nv_llm_output_token_len", "TRT LLM response metrics", "total_output_tokens", |t| &t.answer_lengths),
];

const GAUGES: &[(&str, &str, Now)] = &[
    ("trireme_llm_running", "Answers that are being generated", |s| s.running as f64),
    ("trireme_llm_waiting", "Answers that wait for a place", |s| s.waiting as f64),
    ("trireme_llm_kv_blocks_used", "Blocks of keys and values that are held by answers", |s| {
        s.kv.used as f64
    }),
    ("trireme_llm_kv_blocks_cached", "Free blocks whose content may be found again", |s| s.kv.cached as f64),
    ("trireme_llm_kv_blocks_total", "All blocks of keys and values", |s| s.kv.blocks as f64),
];

const TOTALS: &[(&str, &str, Total)] = &[
    ("trireme_llm_steps_total", "Steps of the engine", |s, _| s.steps),
    ("trireme_llm_preemptions_total", "Answers that were stopped, to be computed again later", |s, _| {
        s.preemptions
    }),
    ("trireme_llm_generated_tokens_total", "Tokens that were generated", |_, t| t.generated_tokens),
    ("trireme_llm_prompt_tokens_total", "Tokens of prompts", |_, t| t.prompt_lengths.sum() as u64),
    (
        "trireme_llm_cached_prompt_tokens_total",
        "Tokens of prompts that were found in the KV cache",
        |_, t| t.cached_tokens,
    ),
    ("trireme_llm_kv_blocks_reused_total", "Blocks that were found with their content", |s, _| s.kv.reused),
    ("trireme_llm_kv_blocks_allocated_total", "Blocks that were taken without content", |s, _| {
        s.kv.allocated
    }),
    ("trireme_llm_kv_blocks_evicted_total", "Blocks whose content was given up for another", |s, _| {
        s.kv.evicted
    }),
];

const REQUESTS: (&str, &str) = ("trireme_llm_requests_total", "Requests that have ended");
const OUTCOMES: &[(&str, Total)] = &[
    ("answered", |_, t| t.outcomes.answered),
    ("cancelled", |_, t| t.outcomes.cancelled),
    ("late", |_, t| t.outcomes.late),
    ("refused", |_, t| t.outcomes.refused),
    ("failed", |_, t| t.outcomes.failed),
];

const HISTOGRAMS: &[(&str, &str, &[f64], Values)] = &[
    (
        "trireme_llm_time_to_first_token_seconds",
        "Time from the arrival of a request to its first token",
        bounds::FIRST_TOKEN_SECONDS,
        |t| &t.first_token_seconds,
    ),
    (
        "trireme_llm_inter_token_latency_seconds",
        "Time between two tokens of an answer",
        bounds::INTER_TOKEN_SECONDS,
        |t| &t.inter_token_seconds,
    ),
    (
        "trireme_llm_request_duration_seconds",
        "Time from the arrival of a request to its end",
        bounds::REQUEST_SECONDS,
        |t| &t.request_seconds,
    ),
    (
        "trireme_llm_queue_duration_seconds",
        "Time from the arrival of a request to the first step with a token of it",
        bounds::FIRST_TOKEN_SECONDS,
        |t| &t.queue_seconds,
    ),
    (
        "trireme_llm_step_tokens",
        "Tokens of prompts and of answers that a step computes",
        bounds::STEP_TOKENS,
        |t| &t.step_tokens,
    ),
];

/// A model's metrics; shown as long as somebody holds this.
pub(super) struct ModelMetrics {
    now: Vec<(Gauge, Now)>,
    totals: Vec<(Counter, Total)>,
    values: Vec<(Histogram, Values)>,
    /// CPU, GPU and pinned memory.
    memory: [Gauge; 3],
}

impl ModelMetrics {
    /// Adds all of them.
    ///
    /// # Errors
    /// What the server says: it has no such metrics, or another backend uses a name for something else.
    pub(super) fn new(context: &ModelContext) -> Result<Self> {
        let set = context.host.metric_set()?;
        let version = context.version.to_string();
        let model = [("model", context.name.as_str()), ("version", version.as_str())];
        let with = |label, value| [model[0], model[1], (label, value)];
        let (mut now, mut totals, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (name, help, label, numbers) in UPSTREAM {
            for (value, of) in *numbers {
                now.push((set.gauge(name, help, &with(*label, *value))?, *of));
            }
        }
        for (name, help, kind, of) in LENGTHS {
            let labels = with("response_metric_type", *kind);
            values.push((set.histogram(name, help, &labels, bounds::LENGTHS)?, *of));
        }
        for (name, help, of) in GAUGES {
            now.push((set.gauge(name, help, &model)?, *of));
        }
        for (name, help, of) in TOTALS {
            totals.push((set.counter(name, help, &model)?, *of));
        }
        for (outcome, of) in OUTCOMES {
            totals.push((set.counter(REQUESTS.0, REQUESTS.1, &with("outcome", *outcome))?, *of));
        }
        for (name, help, bounds, of) in HISTOGRAMS {
            values.push((set.histogram(name, help, &model, bounds)?, *of));
        }
        let (name, help, label) = MEMORY;
        let memory = |kind| set.gauge(name, help, &with(label, kind));
        let memory = [memory("cpu")?, memory("gpu")?, memory("pinned")?];
        Ok(Self { now, totals, values, memory })
    }

    /// Shows how an engine stands. A few hundred stores.
    pub(super) fn show(&self, stats: &CoreStats, tally: &Tally) {
        self.now.iter().for_each(|(gauge, of)| gauge.set(of(stats)));
        self.totals.iter().for_each(|(counter, of)| counter.set(of(stats, tally) as f64));
        for (histogram, of) in &self.values {
            let values = of(tally);
            histogram.set(values.counts(), values.sum());
        }
    }

    pub(super) fn show_memory(&self, memory: MemoryUse) {
        let bytes = [memory.cpu, memory.gpu, memory.pinned];
        self.memory.iter().zip(bytes).for_each(|(gauge, bytes)| gauge.set(bytes as f64));
    }
}
