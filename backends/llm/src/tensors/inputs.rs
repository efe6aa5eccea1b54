//! The inputs of the contract, checked. Errors name the input.

use trireme_sdk::{DataType, Element, Error, Request, Result};

use super::contract::{Contract, is_idle};
use crate::openai::{Abilities, Ask, GuideSpec, Sampling};
use crate::stop::StopRules;

/// Most answers to one prompt.
const MAX_SEQUENCES: i32 = 128;

/// Where a request does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) max_tokens: usize,
    pub(super) exclude_input: bool,
}

/// What holds for all rows of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) streaming: bool,
    pub(super) exclude_input: bool,
    pub(super) logprobs: bool,
    pub(super) sequences: u32,
    /// What shorter rows are filled up with.
    pub(super) pad_id: i32,
}

/// The tensors of TensorRT-LLM's Triton backend.
pub(super) const CONTRACT: Contract = Contract {
    what: "a model of token ids",
    inputs: INPUTS,
    refused: REFUSED,
    outputs: super::outputs::KNOWN,
    absent: super::outputs::ABSENT,
};

const INPUTS: &[(&str, DataType)] = &[
    ("input_ids", DataType::Int32),
    ("input_lengths", DataType::Int32),
    ("request_output_len", DataType::Int32),
    ("num_return_sequences", DataType::Int32),
    ("end_id", DataType::Int32),
    ("pad_id", DataType::Int32),
    ("bad_words_list", DataType::Int32),
    ("stop_words_list", DataType::Int32),
    ("embedding_bias", DataType::Fp32),
    ("beam_width", DataType::Int32),
    ("temperature", DataType::Fp32),
    ("runtime_top_k", DataType::Int32),
    ("runtime_top_p", DataType::Fp32),
    ("len_penalty", DataType::Fp32),
    ("early_stopping", DataType::Bool),
    ("beam_search_diversity_rate", DataType::Fp32),
    ("repetition_penalty", DataType::Fp32),
    ("min_tokens", DataType::Int32),
    ("min_length", DataType::Int32),
    ("presence_penalty", DataType::Fp32),
    ("frequency_penalty", DataType::Fp32),
    ("seed", DataType::Uint64),
    ("random_seed", DataType::Uint64),
    ("return_log_probs", DataType::Bool),
    ("exclude_input_in_output", DataType::Bool),
    ("return_num_input_tokens", DataType::Bool),
    ("return_num_output_tokens", DataType::Bool),
    ("streaming", DataType::Bool),
    ("stop", DataType::Bool),
    ("guided_decoding_guide_type", DataType::Bytes),
    ("guided_decoding_guide", DataType::Bytes),
];

const REFUSED: &[&str] = &[
    "context_phase_params",
    "cross_attention_mask",
    "decoder_input_ids",
    "decoder_input_lengths",
    "draft_acceptance_threshold",
    "draft_input_ids",
    "draft_logits",
    "encoder_input_features",
    "encoder_output_lengths",
    "lookahead_ngram_size",
    "lookahead_verification_set_size",
    "lookahead_window_size",
    "lora_config",
    "lora_task_id",
    "lora_weights",
    "mrope_position_deltas",
    "mrope_rotary_cos_sin",
    "prompt_embedding_table",
    "prompt_table_extra_ids",
    "prompt_vocab_size",
    "retention_decode_duration_ms",
    "retention_decode_priority",
    "retention_token_range_durations_ms",
    "retention_token_range_ends",
    "retention_token_range_priorities",
    "retention_token_range_starts",
    "return_context_logits",
    "return_generation_logits",
    "return_kv_cache_reuse_stats",
    "return_perf_metrics",
    "runtime_top_p_decay",
    "runtime_top_p_min",
    "runtime_top_p_reset_ids",
    "skip_cross_attn_blocks",
];

/// Reads all rows of a request.
pub(super) fn read(
    request: &Request,
    eos_ids: &[u32],
    (vocab_size, max_context): (usize, usize),
    can: Abilities,
    defaults: Defaults,
) -> Result<(Vec<Ask>, Options)> {
    refuse(request)?;
    let reader = Reader { request, vocab_size };
    let ids = request.input("input_ids")?;
    let values = ids.values::<i32>()?;
    let rows = (request.batch_size() as usize).max(1);
    let width = values.len() / rows;
    let options = Options {
        streaming: reader.flag("streaming")?,
        exclude_input: reader.one("exclude_input_in_output", 0)?.unwrap_or(defaults.exclude_input),
        logprobs: reader.flag("return_log_probs")?,
        sequences: reader.at_least("num_return_sequences", 0, 1)?.unwrap_or(1) as u32,
        pad_id: reader.one("pad_id", 0)?.or(reader.one("end_id", 0)?).unwrap_or(0),
    };
    if options.sequences > MAX_SEQUENCES as u32 {
        let text = format!(
            "input 'num_return_sequences' is {}, at most {MAX_SEQUENCES} are given",
            options.sequences
        );
        return Err(Error::invalid(text));
    }
    if options.logprobs && !can.logprobs {
        return Err(cannot("return_log_probs"));
    }
    let mut out = Vec::with_capacity(rows);
    for row in 0..rows {
        let whole = &values[row * width..(row + 1) * width];
        let length = match reader.at_least("input_lengths", row, 1)? {
            None => width,
            Some(length) => {
                usize::try_from(length).ok().filter(|length| *length <= width).ok_or_else(|| {
                    Error::invalid(format!(
                        "input 'input_lengths' is {length}, 'input_ids' has {width} tokens"
                    ))
                })?
            }
        };
        let prompt =
            whole[..length].iter().map(|id| reader.token("input_ids", *id)).collect::<Result<Vec<u32>>>()?;
        if prompt.is_empty() {
            return Err(Error::invalid("input 'input_ids' has no tokens"));
        }
        let room = max_context.saturating_sub(length);
        let wanted = reader.at_least("request_output_len", row, 1)?.map(|n| n as usize);
        if room == 0 || wanted.is_some_and(|wanted| wanted > room) {
            return Err(Error::invalid(format!(
                "input 'input_ids' has {length} tokens and 'request_output_len' is {}, the model's context holds {max_context} together",
                wanted.unwrap_or(1)
            )));
        }
        let max_tokens = wanted.unwrap_or(defaults.max_tokens.min(room));
        let stop = reader.stop(row, rows, eos_ids, max_tokens)?;
        let bad_words = reader.words("bad_words_list", row, rows)?;
        if !bad_words.is_empty() && !can.rules {
            return Err(cannot("bad_words_list"));
        }
        let sampling = reader.sampling(row, rows, options.logprobs)?;
        check_abilities(&sampling, can)?;
        let guide = reader.guide(row)?;
        if guide.is_some() && !can.guided {
            return Err(cannot("guided_decoding_guide"));
        }
        let ask = Ask {
            prompt,
            sampling,
            stop,
            ignore_eos: false,
            bad_words,
            guide,
            n: options.sequences,
            priority: 0,
            deadline_ns: None,
            stream: options.streaming,
            text: false,
        };
        out.push(ask);
    }
    Ok((out, options))
}

fn refuse(request: &Request) -> Result<()> {
    CONTRACT.refuse(request)?;
    match request.optional_input("stop") {
        Some(stop) if !is_idle(&stop)? => {
            Err(Error::unsupported("input 'stop' is not supported: cancel the request, or close its stream"))
        }
        _ => Ok(()),
    }
}

fn cannot(name: &str) -> Error {
    Error::unsupported(format!("input '{name}' is not supported by the engine of this model"))
}

fn check_abilities(asked: &Sampling, can: Abilities) -> Result<()> {
    let plain = Sampling::default();
    let rules = [
        ("presence_penalty", asked.presence_penalty != plain.presence_penalty),
        ("frequency_penalty", asked.frequency_penalty != plain.frequency_penalty),
        ("repetition_penalty", asked.repetition_penalty != plain.repetition_penalty),
        ("min_tokens", asked.min_tokens > 0),
        ("embedding_bias", !asked.logit_bias.is_empty()),
    ];
    let missing = rules.into_iter().find(|(_, wanted)| *wanted && !can.rules);
    missing.map_or(Ok(()), |(name, _)| Err(cannot(name)))
}

struct Reader<'a> {
    request: &'a Request,
    vocab_size: usize,
}

impl Reader<'_> {
    /// The value of a row, or the one value that holds for all rows.
    fn one<T: Element>(&self, name: &str, row: usize) -> Result<Option<T>> {
        let Some(input) = self.request.optional_input(name) else { return Ok(None) };
        let values = input.values::<T>()?;
        Ok(values.get(row).or(values.first().filter(|_| values.len() == 1)).copied())
    }

    fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.one::<bool>(name, 0)?.unwrap_or(false))
    }

    fn at_least(&self, name: &str, row: usize, least: i32) -> Result<Option<i32>> {
        let value = self.one::<i32>(name, row)?;
        match value.filter(|value| *value < least) {
            Some(value) => {
                Err(Error::invalid(format!("input '{name}' is {value}, it must be at least {least}")))
            }
            None => Ok(value),
        }
    }

    fn number(&self, name: &str, row: usize, low: f32, high: f32) -> Result<Option<f32>> {
        let value = self.one::<f32>(name, row)?;
        match value.filter(|value| !(low..=high).contains(value)) {
            Some(value) => {
                Err(Error::invalid(format!("input '{name}' is {value}, it must be from {low} to {high}")))
            }
            None => Ok(value),
        }
    }

    fn token(&self, name: &str, id: i32) -> Result<u32> {
        let fit = u32::try_from(id).ok().filter(|id| (*id as usize) < self.vocab_size);
        fit.ok_or_else(|| {
            Error::invalid(format!(
                "input '{name}': token id {id} is outside the vocabulary of {}",
                self.vocab_size
            ))
        })
    }

    fn sampling(&self, row: usize, rows: usize, logprobs: bool) -> Result<Sampling> {
        if self.at_least("beam_width", row, 1)?.is_some_and(|width| width > 1) {
            return Err(Error::unsupported("input 'beam_width' must be 1: beam search is not supported"));
        }
        let plain = Sampling::default();
        let top_k = self.at_least("runtime_top_k", row, 0)?;
        let top_p = self.number("runtime_top_p", row, 0.0, 1.0)?;
        let temperature = self.number("temperature", row, 0.0, 100.0)?;
        // As TensorRT-LLM: who asks for nothing gets the best token each time.
        let greedy = top_k.is_none() && top_p.is_none();
        let min = self.at_least("min_tokens", row, 0)?.or(self.at_least("min_length", row, 0)?);
        Ok(Sampling {
            temperature: if greedy { 0.0 } else { temperature.unwrap_or(plain.temperature) },
            top_k: top_k.unwrap_or(0) as u32,
            top_p: top_p.filter(|top_p| *top_p > 0.0).unwrap_or(plain.top_p),
            repetition_penalty: self.number("repetition_penalty", row, 0.01, 100.0)?.unwrap_or(1.0),
            presence_penalty: self.number("presence_penalty", row, -100.0, 100.0)?.unwrap_or(0.0),
            frequency_penalty: self.number("frequency_penalty", row, -100.0, 100.0)?.unwrap_or(0.0),
            logit_bias: self.bias(row, rows)?,
            min_tokens: min.unwrap_or(0) as usize,
            seed: self.one("seed", row)?.or(self.one("random_seed", row)?).unwrap_or(0),
            logprobs: logprobs.then_some(0),
            ..plain
        })
    }

    /// One number for each token of the vocabulary.
    fn bias(&self, row: usize, rows: usize) -> Result<Vec<(u32, f32)>> {
        let Some(input) = self.request.optional_input("embedding_bias") else { return Ok(Vec::new()) };
        let values = input.values::<f32>()?;
        let width = values.len() / rows;
        if width == 0 {
            return Ok(Vec::new());
        }
        // A tokenizer may know fewer tokens than the model has rows for.
        if width > self.vocab_size {
            let text =
                format!("input 'embedding_bias' has {width} numbers, the vocabulary {}", self.vocab_size);
            return Err(Error::invalid(text));
        }
        let own = values[row * width..(row + 1) * width].iter().enumerate();
        Ok(own.filter(|(_, bias)| **bias != 0.0).map(|(id, bias)| (id as u32, *bias)).collect())
    }

    /// The end-of-text tokens with `end_id` in their place, and the stop words.
    fn stop(&self, row: usize, rows: usize, eos_ids: &[u32], max_tokens: usize) -> Result<StopRules> {
        let own = self.one::<i32>("end_id", row)?;
        // -1 is how clients say that nothing ends an answer.
        let eos_ids = match own {
            None => eos_ids.to_vec(),
            Some(-1) => Vec::new(),
            Some(id) => vec![self.token("end_id", id)?],
        };
        let rules = StopRules::new(&eos_ids, max_tokens)
            .map_err(|error| Error::invalid(format!("input 'request_output_len': {error}")))?;
        rules
            .with_words(&self.words("stop_words_list", row, rows)?)
            .map_err(|error| Error::invalid(format!("input 'stop_words_list': {error}")))
    }

    /// Two lines for each row: ids, one word after the other, and behind which id each word ends, filled up with -1.
    fn words(&self, name: &str, row: usize, rows: usize) -> Result<Vec<Vec<u32>>> {
        let Some(input) = self.request.optional_input(name) else { return Ok(Vec::new()) };
        let values = input.values::<i32>()?;
        let width = values.len() / rows / 2;
        let own = &values[row * width * 2..(row + 1) * width * 2];
        let (ids, ends) = own.split_at(width);
        let mut words = Vec::new();
        let mut start = 0;
        for end in ends.iter().take_while(|end| **end >= 0) {
            let end = *end as usize;
            let word = ids.get(start..end).filter(|word| !word.is_empty()).ok_or_else(|| {
                Error::invalid(format!(
                    "input '{name}': a word from {start} to {end} is not in its {width} ids"
                ))
            })?;
            words.push(word.iter().map(|id| self.token(name, *id)).collect::<Result<Vec<u32>>>()?);
            start = end;
        }
        Ok(words)
    }

    fn guide(&self, row: usize) -> Result<Option<GuideSpec>> {
        let text = |name: &str| -> Result<Option<String>> {
            let Some(input) = self.request.optional_input(name) else { return Ok(None) };
            let texts = input.texts()?;
            Ok(texts.get(row).or(texts.first()).filter(|text| !text.is_empty()).cloned())
        };
        let invalid = |what: String| Error::invalid(format!("input 'guided_decoding_guide': {what}"));
        let guide = text("guided_decoding_guide")?;
        let needed =
            |kind: &str| guide.clone().ok_or_else(|| invalid(format!("is missing, '{kind}' needs one")));
        Ok(match text("guided_decoding_guide_type")?.as_deref() {
            None => None,
            Some("json") => Some(GuideSpec::JsonObject),
            Some("json_schema") => {
                let schema = serde_json::from_str(&needed("json_schema")?)
                    .map_err(|error| invalid(error.to_string()))?;
                Some(GuideSpec::JsonSchema(schema))
            }
            Some("regex") => Some(GuideSpec::Regex(needed("regex")?)),
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "input 'guided_decoding_guide_type' is '{other}', known are json, json_schema and regex"
                )));
            }
        })
    }
}
