//! What an engine has done since it was started, as numbers that only grow.

use super::{RequestError, Usage};

const SECOND: f64 = 1e9;

/// Upper bounds of the histograms. Those of times are seconds, from a small model on a GPU to a long prompt on a CPU.
pub mod bounds {
    pub const FIRST_TOKEN_SECONDS: &[f64] =
        &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
    pub const INTER_TOKEN_SECONDS: &[f64] = &[
        0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5,
    ];
    pub const REQUEST_SECONDS: &[f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    pub const STEP_TOKENS: &[f64] =
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
    pub const LENGTHS: &[f64] = &[10.0, 50.0, 100.0, 500.0, 1000.0];
}

/// Values counted by upper bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what is above all of them.
    counts: Box<[u64]>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Values up to each bound and above the one before; then those above all bounds.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All values together.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// All answers were given.
    pub answered: u64,
    pub cancelled: u64,
    /// The deadline passed.
    pub late: u64,
    /// At fault, or too many waited: never taken.
    pub refused: u64,
    /// By the model or by the engine.
    pub failed: u64,
}

/// All that was counted and measured. Times are seconds of the engine's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// From a request's arrival to the step that first reads of its prompt.
    pub queue_seconds: Histogram,
    /// From a request's arrival to its first token.
    pub first_token_seconds: Histogram,
    /// Between two tokens of one answer.
    pub inter_token_seconds: Histogram,
    /// From arrival to the end, of requests that were answered.
    pub request_seconds: Histogram,
    /// Tokens of prompts, of requests that were taken.
    pub prompt_lengths: Histogram,
    /// Tokens of all answers of a request, of those that were answered.
    pub answer_lengths: Histogram,
    /// Rows of a step: tokens of prompts and of answers.
    pub step_tokens: Histogram,
    pub outcomes: Outcomes,
    /// Tokens that were sampled.
    pub generated_tokens: u64,
    /// Tokens of prompts whose keys and values were there already.
    pub cached_tokens: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            queue_seconds: Histogram::new(bounds::FIRST_TOKEN_SECONDS),
            first_token_seconds: Histogram::new(bounds::FIRST_TOKEN_SECONDS),
            inter_token_seconds: Histogram::new(bounds::INTER_TOKEN_SECONDS),
            request_seconds: Histogram::new(bounds::REQUEST_SECONDS),
            prompt_lengths: Histogram::new(bounds::LENGTHS),
            answer_lengths: Histogram::new(bounds::LENGTHS),
            step_tokens: Histogram::new(bounds::STEP_TOKENS),
            outcomes: Outcomes::default(),
            generated_tokens: 0,
            cached_tokens: 0,
        }
    }
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / SECOND
}

impl Tally {
    pub(super) fn taken(&mut self, prompt_tokens: usize) {
        self.prompt_lengths.observe(prompt_tokens as f64);
    }

    pub(super) fn started(&mut self, usage: &Usage) {
        self.queue_seconds.observe(seconds(usage.arrival_ns, usage.first_scheduled_ns));
        self.cached_tokens += usage.cached_tokens as u64;
    }

    pub(super) fn planned(&mut self, rows: usize) {
        self.step_tokens.observe(rows as f64);
    }

    /// A token of an answer that had its last one at `before`, or none.
    pub(super) fn token(&mut self, before: Option<u64>, now: u64) {
        self.generated_tokens += 1;
        if let Some(before) = before {
            self.inter_token_seconds.observe(seconds(before, now));
        }
    }

    pub(super) fn first_token(&mut self, usage: &Usage, now: u64) {
        self.first_token_seconds.observe(seconds(usage.arrival_ns, now));
    }

    pub(super) fn answered(&mut self, usage: &Usage, now: u64) {
        self.outcomes.answered += 1;
        self.request_seconds.observe(seconds(usage.arrival_ns, now));
        self.answer_lengths.observe(usage.completion_tokens as f64);
    }

    pub(super) fn ended(&mut self, error: &RequestError) {
        let outcomes = &mut self.outcomes;
        *match error {
            RequestError::Cancelled => &mut outcomes.cancelled,
            RequestError::Deadline => &mut outcomes.late,
            RequestError::Invalid(_) | RequestError::Overloaded { .. } => &mut outcomes.refused,
            RequestError::NoToken { .. } | RequestError::Stopped(_) | RequestError::Internal(_) => {
                &mut outcomes.failed
            }
        } += 1;
    }
}
