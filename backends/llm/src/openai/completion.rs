//! `completions`: a prompt is continued as it is.

use serde_json::{Value, json};
use trireme_sdk::OpenAiError;

use super::ask::{Abilities, Sampling};
use super::common::{self, Common, cannot, token_id};
use super::fields::{Fields, wrong_type};
use super::{Result, unsupported};

/// Prompts of one call.
const MAX_PROMPTS: usize = 256;
/// As OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// A call, checked.
#[derive(Debug)]
pub(super) struct CompletionCall {
    pub(super) prompts: Vec<Text>,
    pub(super) max_tokens: usize,
    pub(super) echo: bool,
    pub(super) common: Common,
}

/// A text, or its tokens.
#[derive(Debug, PartialEq)]
pub(super) enum Text {
    Text(String),
    Ids(Vec<u32>),
}

impl CompletionCall {
    pub(super) fn read(body: Value, vocab_size: usize, can: Abilities, defaults: &Sampling) -> Result<Self> {
        let mut fields = Fields::of("", body)?;
        let prompts = texts(&mut fields, "prompt", vocab_size, MAX_PROMPTS)?;
        let mut common = common::take(&mut fields, vocab_size, can, defaults)?;
        let max_tokens = fields.integer("max_tokens", 1, 1 << 24)?.map_or(DEFAULT_TOKENS, |n| n as usize);
        let echo = fields.boolean("echo")?.unwrap_or(false);
        let logprobs = fields.integer("logprobs", 0, 20)?;
        common.sampling.logprobs = logprobs.map(|n| n as u32);
        if logprobs.is_some() && !can.logprobs {
            return Err(cannot("logprobs"));
        }
        if logprobs.is_some() && echo {
            return Err(unsupported("logprobs", "'logprobs' is not supported together with 'echo'."));
        }
        let n = json!(common.n);
        fields.only("best_of", &[json!(1), n], "every answer is given, so it must be equal to 'n'")?;
        fields.only("suffix", &[json!("")], "the model continues texts, it does not fill in")?;
        fields.finish()?;
        Ok(Self { prompts, max_tokens, echo, common })
    }
}

/// A text, a list of texts, a list of ids, or a list of lists of ids.
pub(super) fn texts(
    fields: &mut Fields,
    name: &'static str,
    vocab_size: usize,
    most: usize,
) -> Result<Vec<Text>> {
    let ids = |path: String, list: Vec<Value>| {
        let ids = list.iter().enumerate().map(|(at, id)| token_id(&format!("{path}[{at}]"), id, vocab_size));
        ids.collect::<Result<Vec<u32>>>().map(Text::Ids)
    };
    let list = match fields.needed(name)? {
        Value::String(text) => return Ok(vec![Text::Text(text)]),
        Value::Array(list) => list,
        other => return Err(wrong_type(name, "a string, a list of strings, or tokens", &other)),
    };
    if list.is_empty() {
        return Err(OpenAiError::invalid(name, format!("Invalid '{name}': the list is empty."))
            .with_code("empty_array"));
    }
    if list.iter().all(Value::is_number) {
        return Ok(vec![ids(name.to_owned(), list)?]);
    }
    if list.len() > most {
        let is = format!("a list of {}", list.len());
        return Err(fields.out_of_range(name, &is, &format!("a list of at most {most}")));
    }
    let one = |(at, value): (usize, Value)| match value {
        Value::String(text) => Ok(Text::Text(text)),
        Value::Array(list) => ids(format!("{name}[{at}]"), list),
        other => Err(wrong_type(&format!("{name}[{at}]"), "a string or a list of token ids", &other)),
    };
    list.into_iter().enumerate().map(one).collect()
}
