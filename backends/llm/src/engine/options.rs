//! How an engine batches.

use std::sync::Arc;

use super::{CoreStats, Tally};
use crate::profile::ProfileSet;
use crate::tokenizer::Tokenizer;

/// Nanoseconds of the clock that deadlines are given in.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Told of an engine's numbers whenever they have changed, on its thread: it must not block.
pub type Meter = Arc<dyn Fn(&CoreStats, &Tally) + Send + Sync>;

/// Told once that an executor has lost its device, and what was said of it; before the requests are.
pub type Alarm = Arc<dyn Fn(&str) + Send + Sync>;

/// When a waiting sequence may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// When blocks for all it may ever need are free: once started, it is preempted only while its reader is behind and
    /// others wait for room.
    #[default]
    GuaranteedNoEvict,
    /// When blocks for what it has are free: more run at a time, and if blocks run out, the least urgent is preempted
    /// and computed again later.
    MaxUtilization,
}

/// What an engine is started with.
#[derive(Clone)]
pub struct EngineOptions {
    pub policy: Policy,
    /// Rows of a step at most, bounded by what the executor takes. `None`: all that it takes.
    pub max_num_tokens: Option<usize>,
    /// Sequences that run at a time, bounded by the executor's slots. `None`: as many as it has.
    pub max_batch_size: Option<usize>,
    /// Answers that may wait beside those for which there are places; more are refused.
    pub max_waiting: usize,
    /// Whether prompts share the blocks of equal beginnings.
    pub prefix_reuse: bool,
    /// Whether a prompt may be read in pieces beside the decode rows. Without it one that fits a step is read in one.
    pub chunked_prefill: bool,
    /// Shapes that steps are rounded up to; empty for any shape.
    pub profiles: ProfileSet,
    /// What texts are made with. Without one, requests get token ids only.
    pub tokenizer: Option<Tokenizer>,
    pub clock: Clock,
    pub meter: Option<Meter>,
    pub device_lost: Option<Alarm>,
}

impl EngineOptions {
    /// Everything at its default.
    pub fn new(clock: Clock) -> Self {
        Self {
            policy: Policy::default(),
            max_num_tokens: None,
            max_batch_size: None,
            max_waiting: 16_384,
            prefix_reuse: true,
            chunked_prefill: true,
            profiles: ProfileSet::default(),
            tokenizer: None,
            clock,
            meter: None,
            device_lost: None,
        }
    }
}
