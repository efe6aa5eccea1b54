//! The fields that chat and completions share.

use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};
use trireme_sdk::OpenAiError;

use super::ask::{Abilities, Sampling};
use super::fields::{Fields, wrong_type};
use super::{Result, unsupported};
use crate::tokenizer::Tokenizer;

/// Most answers to one prompt.
const MAX_N: u64 = 128;
/// Most stop strings; OpenAI takes 4.
const MAX_STOPS: usize = 64;
const MAX_BAD_WORDS: usize = 256;
const MAX_BIASES: usize = 4096;

/// What the two have in common, checked.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) sampling: Sampling,
    pub(super) n: u32,
    pub(super) stop: Vec<String>,
    pub(super) stop_ids: Vec<u32>,
    pub(super) ignore_eos: bool,
    bad_words: Vec<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// Takes the fields out. `logprobs` is not among them: the two spell it differently.
pub(super) fn take(
    fields: &mut Fields,
    vocab_size: usize,
    can: Abilities,
    defaults: &Sampling,
) -> Result<Common> {
    // For accounting and storage at the provider; there is neither.
    fields.noted(&["model", "user", "safety_identifier", "metadata", "prompt_cache_key"]);
    fields.only("store", &[json!(false)], "nothing is stored")?;
    fields.only("service_tier", &[json!("auto"), json!("default")], "there is one tier, 'default'")?;
    let mut sampling = defaults.clone();
    let set = |to: &mut f32, value: Option<f32>| *to = value.unwrap_or(*to);
    set(&mut sampling.temperature, fields.number("temperature", 0.0, 2.0)?);
    set(&mut sampling.top_p, fields.number("top_p", 0.0, 1.0)?);
    set(&mut sampling.presence_penalty, fields.number("presence_penalty", -2.0, 2.0)?);
    set(&mut sampling.frequency_penalty, fields.number("frequency_penalty", -2.0, 2.0)?);
    set(&mut sampling.repetition_penalty, fields.number("repetition_penalty", 0.01, 100.0)?);
    set(&mut sampling.min_p, fields.number("min_p", 0.0, 1.0)?);
    if let Some(top_k) = top_k(fields)? {
        sampling.top_k = top_k;
    }
    sampling.min_tokens = fields.integer("min_tokens", 0, 1 << 24)?.unwrap_or(0) as usize;
    sampling.logit_bias = logit_bias(fields, vocab_size)?;
    sampling.seed = match fields.take("seed") {
        None => RandomState::new().hash_one(0),
        // A seed may be negative.
        Some(seed) => match (seed.as_i64(), seed.as_u64()) {
            (Some(seed), _) => seed as u64,
            (_, Some(seed)) => seed,
            _ => return Err(wrong_type("seed", "a whole number", &seed)),
        },
    };
    let n = fields.integer("n", 1, MAX_N)?.unwrap_or(1) as u32;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = stream_options(fields, stream)?;
    let common = Common {
        n,
        stop: stop(fields)?,
        stop_ids: token_ids(fields, "stop_token_ids", vocab_size)?,
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        bad_words: bad_words(fields)?,
        stream,
        include_usage,
        sampling,
    };
    fields.only(
        "include_stop_str_in_output",
        &[json!(false)],
        "stop strings are never part of the answer",
    )?;
    check_abilities(&common, can)?;
    Ok(common)
}

impl Common {
    /// What the answers must not have, as tokens.
    pub(super) fn bad_words(&self, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
        let words = tokenizer.words(&self.bad_words);
        words.map_err(|e| OpenAiError::invalid("bad_words", format!("Invalid 'bad_words': {e}.")))
    }
}

/// -1 and 0 are all tokens.
fn top_k(fields: &mut Fields) -> Result<Option<u32>> {
    let Some(value) = fields.take("top_k") else { return Ok(None) };
    match value.as_i64() {
        Some(-1) => Ok(Some(0)),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            fields.out_of_range("top_k", &number.to_string(), "at least 1, or 0 for all tokens")
        }),
        None => Err(wrong_type("top_k", "a whole number", &value)),
    }
}

/// What an engine cannot do is refused by name.
fn check_abilities(common: &Common, can: Abilities) -> Result<()> {
    let plain = Sampling::default();
    let asked = &common.sampling;
    let rules = [
        ("presence_penalty", asked.presence_penalty != plain.presence_penalty),
        ("frequency_penalty", asked.frequency_penalty != plain.frequency_penalty),
        ("repetition_penalty", asked.repetition_penalty != plain.repetition_penalty),
        ("min_p", asked.min_p != plain.min_p),
        ("min_tokens", asked.min_tokens > 0),
        ("logit_bias", !asked.logit_bias.is_empty()),
        ("ignore_eos", common.ignore_eos),
        ("bad_words", !common.bad_words.is_empty()),
    ];
    match rules.into_iter().find(|(_, wanted)| *wanted && !can.rules) {
        Some((name, _)) => Err(cannot(name)),
        None => Ok(()),
    }
}

/// The engine cannot do what the field asks.
pub(super) fn cannot(name: &str) -> OpenAiError {
    unsupported(name, format!("'{name}' is not supported by the engine of this model."))
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        let text = "'stream_options' is only allowed when 'stream' is true.";
        return Err(OpenAiError::invalid("stream_options", text));
    }
    let mut options = Fields::of("stream_options", options)?;
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    options.only("include_obfuscation", &[json!(false)], "chunks are sent as they are")?;
    options.finish()?;
    Ok(usage)
}

fn bad_words(fields: &mut Fields) -> Result<Vec<String>> {
    let list = fields.list("bad_words")?.unwrap_or_default();
    if list.len() > MAX_BAD_WORDS {
        let is = format!("a list of {}", list.len());
        return Err(fields.out_of_range("bad_words", &is, "a list of at most 256 strings"));
    }
    let word = |(at, value): (usize, Value)| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        other => Err(wrong_type(&format!("bad_words[{at}]"), "a string that is not empty", &other)),
    };
    list.into_iter().enumerate().map(word).collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>> {
    let texts = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => {
            let text = |(at, value): (usize, Value)| match value {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(&format!("stop[{at}]"), "a string", &other)),
            };
            list.into_iter().enumerate().map(text).collect::<Result<Vec<_>>>()?
        }
        Some(other) => return Err(wrong_type("stop", "a string or a list of strings", &other)),
    };
    if texts.len() > MAX_STOPS {
        return Err(fields.out_of_range(
            "stop",
            &format!("a list of {}", texts.len()),
            "a list of at most 64 strings",
        ));
    }
    if let Some(at) = texts.iter().position(String::is_empty) {
        return Err(OpenAiError::invalid("stop", format!("Invalid 'stop': string number {at} is empty.")));
    }
    Ok(texts)
}

/// A list of ids of the vocabulary.
pub(super) fn token_ids(fields: &mut Fields, name: &'static str, vocab_size: usize) -> Result<Vec<u32>> {
    let list = fields.list(name)?.unwrap_or_default();
    list.iter().enumerate().map(|(at, value)| token_id(&format!("{name}[{at}]"), value, vocab_size)).collect()
}

pub(super) fn token_id(path: &str, value: &Value, vocab_size: usize) -> Result<u32> {
    let Some(id) = value.as_u64() else { return Err(wrong_type(path, "a token id", value)) };
    u32::try_from(id).ok().filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
        let text = format!("Invalid '{path}': token id {id} is outside the vocabulary of {vocab_size}.");
        OpenAiError::invalid(path, text).with_code("invalid_value")
    })
}

fn logit_bias(fields: &mut Fields, vocab_size: usize) -> Result<Vec<(u32, f32)>> {
    let map = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_type("logit_bias", "an object of token ids and numbers", &other)),
    };
    if map.len() > MAX_BIASES {
        return Err(fields.out_of_range(
            "logit_bias",
            &format!("of {} tokens", map.len()),
            "of at most 4096",
        ));
    }
    let one = |(key, value): (&String, &Value)| {
        let path = format!("logit_bias.{key}");
        let id = key.parse::<u64>().map_or_else(|_| Value::from(key.as_str()), Value::from);
        let id = token_id(&path, &id, vocab_size)?;
        let bias = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", value))?;
        match (-100.0..=100.0).contains(&bias) {
            true => Ok((id, bias as f32)),
            false => {
                Err(fields.out_of_range(&format!("logit_bias.{key}"), &bias.to_string(), "from -100 to 100"))
            }
        }
    };
    map.iter().map(one).collect()
}
