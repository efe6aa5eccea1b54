//! The narrow waist between the engine's logic and what computes: slots, blocks and steps.
//!
//! The engine owns all decisions (who is admitted, which blocks a sequence holds, what runs in a step); an executor owns
//! all computing (weights, the memory behind block ids, layers, sampling). An executor keeps the state of a *slot* between
//! steps: its block table, its sampling rules, what it generated, its last token. So a step carries differences only, and
//! an executor on a device can run step `n + 1` before anybody has read the tokens of step `n`.
//!
//! ```text
//!  engine ── submit(StepDiff n+1) ──▶ executor ─┐   slots: 0 1 2 … max_slots-1
//!    ▲                                          │   blocks: 0 1 2 … num_blocks-1, of block_tokens positions,
//!    └───── wait(StepId n) ◀── StepOutput ──────┘           keys and values of all layers
//! ```
//!
//! Rules of every step, which the engine keeps and an executor may rely on:
//! * Differences apply in the order `freed`, `admitted`, `blocks`; then all rows run as one.
//! * A slot has at most one prefill chunk *or* one decode row.
//! * Every position that a row reads or writes lies in a block of its slot's table. A block that several slots share is
//!   full and is only read.
//! * Rows fit `max_step_tokens`; positions fit `max_context`; steps end in the order in which they were submitted.

mod error;
mod ledger;
mod step;

pub use error::ExecutorError;
pub use ledger::Ledger;
pub use step::{
    Admission, BlockTableChange, Bucket, DecodeRow, PrefillChunk, Sampled, SlotSampling, StepDiff,
    StepOutput, TokenLogprob, TokenMask,
};

/// Index of a sequence's place in the executor, below [`ExecutorInfo::max_slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Index of a block of keys and values, below [`KvLayout::num_blocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Number of a submitted step, counted up from 0 by the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u64);

/// Keys and values as an executor stores them: described for reports and capacity, never assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Positions of a block.
    pub block_tokens: usize,
    pub num_blocks: usize,
    /// Bytes of a block, all layers together.
    pub block_bytes: usize,
    /// Element type, as configurations spell it (`float16`, `bfloat16`, `float32`).
    pub dtype: &'static str,
}

/// What an executor offers. Fixed once it is loaded.
#[derive(Clone, Debug)]
pub struct ExecutorInfo {
    /// Logits of a row, and the bound on token ids.
    pub vocab_size: usize,
    /// Positions that a sequence may have, prompt included.
    pub max_context: usize,
    /// Sequences that may be admitted at a time.
    pub max_slots: usize,
    /// Rows of a step: tokens of prefill chunks and decode rows together.
    pub max_step_tokens: usize,
    /// Steps that may be submitted and not yet waited for. 1: the executor computes in `submit` or `wait`.
    pub max_steps_in_flight: usize,
    pub kv: KvLayout,
}

/// Bytes that an executor has taken for keys, values and what steps need, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub cpu: u64,
    pub gpu: u64,
    pub pinned: u64,
}

/// Runs packed steps of one model. Not shared: one thread drives it.
pub trait Executor: Send {
    fn info(&self) -> &ExecutorInfo;

    /// What it has taken; shown among the metrics.
    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    /// Starts a step.
    ///
    /// # Errors
    /// [`ExecutorError::Fatal`] and [`ExecutorError::DeviceLost`] if nothing can be computed any more. The step has then
    /// not been taken.
    fn submit(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError>;

    /// The result of a submitted step if it is there. Each step is taken once, in the order of submission.
    fn poll(&mut self, id: StepId) -> Result<Option<StepOutput>, ExecutorError>;

    /// Blocks until the step is done.
    fn wait(&mut self, id: StepId) -> Result<StepOutput, ExecutorError>;
}
