//! What a step says, and what comes of it.

use std::sync::Arc;

use super::{BlockId, Slot, StepId};

/// One step: what changed since the last one, and the rows to run.
#[derive(Clone, Debug, Default)]
pub struct StepDiff {
    /// Slots whose sequence has ended or was preempted. Their blocks may belong to others from this step on.
    pub freed: Vec<Slot>,
    /// Sequences that get a slot. Its block table is empty.
    pub admitted: Vec<Admission>,
    pub blocks: Vec<BlockTableChange>,
    pub prefill: Vec<PrefillChunk>,
    pub decode: Vec<DecodeRow>,
    /// Tokens that may be sampled in this step, for slots that do not choose freely.
    pub masks: Vec<TokenMask>,
    /// The shape to run, chosen from the model's shape profiles: at least the step's rows and slots. An executor that
    /// computes any shape alike may pass it over.
    pub bucket: Option<Bucket>,
}

/// A shape that kernels and graphs are prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Rows: tokens of prefill chunks and decode rows together.
    pub tokens: u32,
    /// Slots that have rows.
    pub batch: u32,
}

/// A sequence moves into a slot.
#[derive(Clone, Debug)]
pub struct Admission {
    pub slot: Slot,
    pub sampling: Arc<SlotSampling>,
    /// The whole prompt, also what of it comes from reused blocks: penalties look at it.
    pub prompt: Arc<[u32]>,
    /// What it had generated before it was preempted; empty for a new one. It is part of what prefill reads again.
    pub generated: Arc<[u32]>,
}

/// Blocks that follow those a slot's table already has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTableChange {
    pub slot: Slot,
    /// Length of the table before, for checking.
    pub first: u32,
    pub blocks: Vec<BlockId>,
}

/// Tokens that are read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefillChunk {
    pub slot: Slot,
    /// Position of the first token.
    pub start: u32,
    /// At least one.
    pub tokens: Vec<u32>,
    /// Whether the last row's logits are sampled, and if so the index of the new token among the generated ones.
    pub sample: Option<u32>,
    /// Whether the logits of every row are handed out.
    pub context_logits: bool,
}

/// The next token of a sequence that generates. Its input is the token that the slot sampled last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeRow {
    pub slot: Slot,
    /// Position of the input token.
    pub position: u32,
    /// Index of the new token among the generated ones: the counter of the random numbers.
    pub sample: u32,
}

/// A bit for each token of the vocabulary, lowest bit of the first word first; a cleared bit forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    pub slot: Slot,
    pub words: Arc<[u32]>,
}

/// How a slot chooses its tokens. Applied in this order: mask, bias, `min_tokens`, penalties, temperature, `top_k`,
/// `top_p`, `min_p`. [`crate::sampling::Sampler::choose`] is the specification.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSampling {
    /// 0 chooses the best token.
    pub temperature: f32,
    /// 0 is all tokens.
    pub top_k: u32,
    /// 1 is all tokens.
    pub top_p: f32,
    /// Tokens whose probability is below this share of the best one's are left out; 0 leaves none out.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens in the answer, once.
    pub presence_penalty: f32,
    /// Taken off the logits of tokens in the answer, for each time.
    pub frequency_penalty: f32,
    /// Added to logits; negative infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// None of `end_ids` is sampled as one of the first `min_tokens` tokens.
    pub min_tokens: u32,
    pub end_ids: Vec<u32>,
    pub seed: u64,
    /// `Some(n)`: with each token its log-probability and those of the `n` best, taken before temperature and the cuts
    /// and after mask, bias and penalties.
    pub logprobs: Option<u32>,
}

/// A token and its natural log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    pub logprob: f32,
}

/// What one slot sampled in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub slot: Slot,
    /// `None` if no logit was a number or every token was forbidden, so that nothing could be chosen: the sequence has
    /// failed.
    pub token: Option<u32>,
    /// With [`SlotSampling::logprobs`]: of the chosen token.
    pub logprob: Option<f32>,
    /// With [`SlotSampling::logprobs`]: the best tokens, best first.
    pub top: Vec<TokenLogprob>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    pub id: StepId,
    /// In no particular order.
    pub sampled: Vec<Sampled>,
    /// Rows of `vocab_size` logits for the chunks that wanted them, in the order of the chunks.
    pub context_logits: Vec<(Slot, Vec<f32>)>,
}

impl Default for SlotSampling {
    /// The best token each time.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            min_tokens: 0,
            end_ids: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl StepDiff {
    /// Rows that the step runs.
    pub fn rows(&self) -> usize {
        self.prefill.iter().map(|chunk| chunk.tokens.len()).sum::<usize>() + self.decode.len()
    }

    /// Slots that have rows.
    pub fn slots(&self) -> usize {
        self.prefill.len() + self.decode.len()
    }
}
