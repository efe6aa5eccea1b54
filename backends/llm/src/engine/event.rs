//! What an engine answers.

use crate::executor::TokenLogprob;
use crate::stop::FinishReason;

/// Something of a request's answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More of one answer.
    Output(Output),
    /// The request is over. Comes exactly once, last.
    End(Result<Usage, RequestError>),
}

/// More of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Which of the request's `n` answers.
    pub index: u32,
    /// New tokens, without a token that ended the answer. With stop strings the text may lag behind.
    pub tokens: Vec<u32>,
    /// New text that is certain: it holds no part of a stop string and no half character.
    pub text: String,
    /// One for each of `tokens`, if asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Logits of the prompt's positions, `[prompt tokens, vocabulary]`, if asked for; with the first output.
    pub context_logits: Option<Vec<f32>>,
    /// The answer is over.
    pub finish: Option<Finish>,
}

/// A token's log-probability and the best ones beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub token: u32,
    pub logprob: f32,
    pub top: Vec<TokenLogprob>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    pub reason: FinishReason,
    /// The end-of-text or stop token that ended it; it is not among the output's tokens.
    pub token: Option<u32>,
    /// Tokens that were sampled, the one that ended it included.
    pub completion_tokens: usize,
}

/// What a request has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Tokens of the prompt whose keys and values were there already.
    pub cached_tokens: usize,
    /// Sampled tokens of all answers.
    pub completion_tokens: usize,
    /// Blocks that were taken new, and that were found.
    pub new_blocks: usize,
    pub reused_blocks: usize,
    /// Times a sequence of the request was preempted.
    pub preemptions: usize,
    /// On the engine's clock.
    pub arrival_ns: u64,
    pub first_scheduled_ns: u64,
    pub first_token_ns: u64,
    pub last_token_ns: u64,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request is at fault.
    #[error("{0}")]
    Invalid(String),
    /// Too many wait already.
    #[error("{waiting} requests are waiting, the limit is {limit}: try again later")]
    Overloaded { waiting: usize, limit: usize },
    #[error("the request was cancelled")]
    Cancelled,
    #[error("the request's deadline has passed")]
    Deadline,
    /// The model gave no number for this answer.
    #[error(
        "no token can be chosen as token {position} of answer {index}: the model's output has no number in it, or every token is forbidden"
    )]
    NoToken { index: u32, position: usize },
    /// The engine has failed or was stopped.
    #[error("the engine does not run any more: {0}")]
    Stopped(String),
    /// A fault of this engine's.
    #[error("{0}")]
    Internal(String),
}

/// What a receiver says to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Compute no more for this request until it is resumed by its handle.
    Pause,
    /// Nobody listens any more: the request is cancelled.
    Stop,
}
