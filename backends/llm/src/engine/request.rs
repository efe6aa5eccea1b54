//! What an engine is asked for.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::executor::SlotSampling;
use crate::grammar::Grammar;
use crate::stop::StopRules;

/// One prompt to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// At least one token.
    pub prompt: Arc<[u32]>,
    /// How tokens are chosen. `end_ids` is filled in by the engine from `stop`.
    pub sampling: SlotSampling,
    /// When an answer ends.
    pub stop: StopRules,
    /// Whether the model's own end-of-text tokens are tokens like others.
    pub ignore_eos: bool,
    /// Sequences of tokens that no answer has, whether they begin in it or in the prompt.
    pub bad_words: Vec<Vec<u32>>,
    /// The form that each answer has. It decides when an answer may end: `min_tokens` then has no meaning.
    pub grammar: Option<Grammar>,
    /// Answers to give; they share the prompt. Answer `i` has a seed of its own, made of the request's seed and `i`.
    pub n: u32,
    /// 0 for none given; else the smaller, the more urgent.
    pub priority: u64,
    /// On the engine's clock. A request that is not done by then ends with [`RequestError::Deadline`].
    ///
    /// [`RequestError::Deadline`]: super::RequestError::Deadline
    pub deadline_ns: Option<u64>,
    /// Tokens between two outputs of an answer; the first token comes at once. `None`: one output at the end.
    pub stream: Option<NonZeroU32>,
    /// Whether outputs have text. Needs a tokenizer.
    pub text: bool,
    /// Whether the logits of every position of the prompt are wanted. Such a request reuses no blocks.
    pub context_logits: bool,
    /// Requests share blocks only with those of the same salt.
    pub cache_salt: Option<Box<str>>,
}

impl Request {
    /// A request with nothing special: greedy, one answer, no stream, no text.
    pub fn new(prompt: impl Into<Arc<[u32]>>, stop: StopRules) -> Self {
        Self {
            prompt: prompt.into(),
            sampling: SlotSampling::default(),
            stop,
            ignore_eos: false,
            bad_words: Vec::new(),
            grammar: None,
            n: 1,
            priority: 0,
            deadline_ns: None,
            stream: None,
            text: false,
            context_logits: false,
            cache_salt: None,
        }
    }
}
