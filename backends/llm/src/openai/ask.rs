//! What the API asks of an engine, and what an engine says to it.

use crate::stop::{FinishReason, StopRules};

/// One prompt to continue.
#[derive(Clone, Debug)]
pub struct Ask {
    /// At least one token.
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub stop: StopRules,
    pub ignore_eos: bool,
    /// Sequences of tokens that no answer has.
    pub bad_words: Vec<Vec<u32>>,
    pub guide: Option<GuideSpec>,
    /// Answers to give.
    pub n: u32,
    /// 0 for none given; smaller is more urgent.
    pub priority: u64,
    /// Nanoseconds of the host's clock.
    pub deadline_ns: Option<u64>,
    /// Whether each token is to be told at once; otherwise one output at the end will do.
    pub stream: bool,
    /// Whether outputs have text.
    pub text: bool,
}

/// How tokens are chosen. All numbers are in their ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is all tokens.
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    pub min_tokens: usize,
    pub seed: u64,
    /// How many of the best tokens come with each token's log-probability; `None`: no log-probabilities.
    pub logprobs: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            min_tokens: 0,
            seed: 0,
            logprobs: None,
        }
    }
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum GuideSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(serde_json::Value),
    /// JSON of this schema; what of it no grammar can hold is left to the model.
    LooseJsonSchema(serde_json::Value),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text that the expression matches as a whole.
    Regex(String),
}

/// What an engine can do of what may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Penalties, `logit_bias`, `min_p`, `min_tokens`, `ignore_eos`.
    pub rules: bool,
    pub logprobs: bool,
    /// Guided decoding.
    pub guided: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Self = Self { rules: true, logprobs: true, guided: true };
}

/// Something of the answers to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Output(Output),
    /// Comes exactly once, last.
    End(std::result::Result<Usage, AskError>),
}

/// More of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Which of the `n` answers.
    pub index: u32,
    /// New tokens, without one that ended the answer.
    pub tokens: Vec<u32>,
    /// New text that is certain.
    pub text: String,
    /// One for each of `tokens`, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// The answer is over.
    pub finish: Option<FinishReason>,
}

/// A token's natural log-probability and the best ones beside it, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub token: u32,
    pub logprob: f32,
    pub top: Vec<(u32, f32)>,
}

/// What a call has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The request is at fault.
    Invalid(String),
    /// Its [`Ask::guide`] is: no answer can be held to it.
    Form(String),
    /// Not now.
    Unavailable(String),
    /// Not now: too many wait.
    Overloaded(String),
    Cancelled,
    /// The engine's fault.
    Internal(String),
}

/// What a receiver says to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// The reader is slow: nothing more until the receiver's `on_writable` has called.
    Pause,
    /// Nobody listens any more.
    Stop,
}

/// Where the events of an ask go; called from one thread at a time.
pub trait Receiver: Send {
    fn event(&mut self, event: Event) -> Flow;

    /// Whether nobody waits any more; may be asked at any time.
    fn is_cancelled(&self) -> bool;

    /// Calls `call` once when the next event is welcome after a [`Flow::Pause`], or when nobody waits any more.
    fn on_writable(&mut self, call: Box<dyn FnOnce() + Send>);
}
