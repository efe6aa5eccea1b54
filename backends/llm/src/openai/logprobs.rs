//! Log-probabilities as the two endpoints show them.

use serde_json::{Map, Value, json};

use super::ask::TokenLogprobs;
use crate::tokenizer::Tokenizer;

/// The smallest that is shown: JSON has no infinity.
const LEAST: f32 = -9999.0;

/// One entry of a chat's `logprobs.content`.
pub(super) fn of_chat(tokenizer: &Tokenizer, logprobs: &TokenLogprobs) -> Value {
    let one = |token: u32, logprob: f32| {
        let bytes = tokenizer.token_bytes(token);
        json!({ "token": String::from_utf8_lossy(&bytes), "logprob": logprob.max(LEAST), "bytes": bytes })
    };
    let mut entry = one(logprobs.token, logprobs.logprob);
    let top: Vec<Value> = logprobs.top.iter().map(|(token, logprob)| one(*token, *logprob)).collect();
    entry["top_logprobs"] = top.into();
    entry
}

/// The lists of a completion's `logprobs`.
#[derive(Debug, Default)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    logprobs: Vec<f32>,
    top: Vec<Value>,
    offsets: Vec<usize>,
    /// Characters of the text up to here.
    end: usize,
}

impl CompletionLogprobs {
    /// Begins behind so many characters.
    pub(super) fn after(characters: usize) -> Self {
        Self { end: characters, ..Self::default() }
    }

    pub(super) fn push(&mut self, tokenizer: &Tokenizer, logprobs: &TokenLogprobs) {
        let text = |token| String::from_utf8_lossy(&tokenizer.token_bytes(token)).into_owned();
        let token = text(logprobs.token);
        self.offsets.push(self.end);
        self.end += token.chars().count();
        self.tokens.push(token);
        self.logprobs.push(logprobs.logprob.max(LEAST));
        let top = logprobs.top.iter().map(|(token, logprob)| (text(*token), json!(logprob.max(LEAST))));
        self.top.push(Value::Object(top.collect::<Map<_, _>>()));
    }

    /// The lists so far, which begin anew.
    pub(super) fn take(&mut self) -> Value {
        let rest = Self::after(self.end);
        let Self { tokens, logprobs, top, offsets, .. } = std::mem::replace(self, rest);
        json!({ "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets })
    }
}
