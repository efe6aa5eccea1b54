//! A decode loop for one text at a time.

use std::ops::ControlFlow;

use crate::sampling::{Sampler, SamplingParams};
use crate::stop::{FinishReason, StopRules};
use crate::tokenizer::{Detokenizer, Tokenizer, TokenizerError};

/// A decoder with room for one sequence.
pub trait DecoderModel {
    type Error: std::error::Error + 'static;

    /// Size of the vocabulary: the number of logits, and the bound on ids.
    fn vocab_size(&self) -> usize;

    /// Tokens that a sequence may have, prompt included.
    fn max_context(&self) -> usize;

    /// Forgets the former sequence and reads a prompt of at least one token. Returns the logits after it.
    fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], Self::Error>;

    /// Appends one token to the sequence. Returns the logits after it.
    fn step(&mut self, id: u32) -> Result<&[f32], Self::Error>;
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    pub finish: FinishReason,
    pub prompt_tokens: usize,
    /// Tokens that were sampled, the one that ended the text included.
    pub completion_tokens: usize,
}

/// Why there is no generation.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError<E: std::error::Error + 'static> {
    /// The request is at fault.
    #[error("{0}")]
    InvalidArgument(String),
    #[error("the model failed: {0}")]
    Model(#[source] E),
    #[error("the model's output has no number in it at generated token {position}")]
    NoLogits { position: usize },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// One text to generate.
pub struct GenerateRequest<'a> {
    pub prompt: &'a [u32],
    pub sampling: SamplingParams,
    pub stop: &'a StopRules,
}

/// Generates one text. `on_piece` gets each piece of text as soon as it is certain (never empty) and may break off;
/// `cancelled` is asked before each step of the model.
pub fn generate<M: DecoderModel>(
    model: &mut M,
    tokenizer: &Tokenizer,
    request: &GenerateRequest<'_>,
    mut cancelled: impl FnMut() -> bool,
    mut on_piece: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, GenerateError<M::Error>> {
    check_prompt(request.prompt, model.vocab_size(), model.max_context())?;
    let room = model.max_context() - request.prompt.len();
    let (limit, at_limit) = if request.stop.max_tokens <= room {
        (request.stop.max_tokens, FinishReason::MaxTokens)
    } else {
        (room, FinishReason::ContextFull)
    };
    let mut sampler = Sampler::new();
    let mut detokenizer = Detokenizer::new(tokenizer);
    let mut filter = request.stop.filter();
    let mut emit = |text: &str| if text.is_empty() { ControlFlow::Continue(()) } else { on_piece(text) };
    let mut done = 0;
    let mut last = None;
    let finish = loop {
        if cancelled() {
            break FinishReason::Cancelled;
        }
        let logits = match last {
            None => model.prefill(request.prompt),
            Some(id) => model.step(id),
        };
        let logits = logits.map_err(GenerateError::Model)?;
        let id = sampler
            .sample(logits, &request.sampling, done as u64)
            .ok_or(GenerateError::NoLogits { position: done })?;
        done += 1;
        if let Some(reason) = request.stop.at_token(id) {
            break reason;
        }
        let (text, stopped) = filter.push(&detokenizer.push(id)?);
        if emit(&text).is_break() {
            break FinishReason::Cancelled;
        }
        if stopped {
            break FinishReason::StopString;
        }
        if done == limit {
            break at_limit;
        }
        last = Some(id);
    };
    let mut generation = Generation { finish, prompt_tokens: request.prompt.len(), completion_tokens: done };
    if !matches!(finish, FinishReason::Cancelled | FinishReason::StopString) {
        let (mut rest, stopped) = filter.push(&detokenizer.finish()?);
        if stopped {
            generation.finish = FinishReason::StopString;
        } else {
            rest.push_str(&filter.finish());
        }
        // A break here changes nothing: the text is whole.
        let _ = emit(&rest);
    }
    Ok(generation)
}

fn check_prompt<E: std::error::Error>(
    prompt: &[u32],
    vocab_size: usize,
    max_context: usize,
) -> Result<(), GenerateError<E>> {
    let refuse = |text| Err(GenerateError::InvalidArgument(text));
    if prompt.is_empty() {
        return refuse("the prompt has no tokens".to_owned());
    }
    if prompt.len() >= max_context {
        let n = prompt.len();
        return refuse(format!(
            "the prompt has {n} tokens, the model's context holds {max_context} with the answer"
        ));
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab_size) {
        return refuse(format!("token id {id} is outside the vocabulary of {vocab_size}"));
    }
    Ok(())
}
