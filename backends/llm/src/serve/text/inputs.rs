//! The optional inputs of a request for text, checked. Errors name the input.

use trireme_sdk::{DataType, Element, Error, Request, Result};

use crate::openai::Sampling;
use crate::sampling::{SamplingParams, SamplingRequest};
use crate::stop::StopRules;

/// Name, type and dimension.
pub(super) const OPTIONAL: &[(&str, DataType, i64)] = &[
    ("max_tokens", DataType::Int32, 1),
    ("temperature", DataType::Fp32, 1),
    ("top_k", DataType::Int32, 1),
    ("top_p", DataType::Fp32, 1),
    ("random_seed", DataType::Uint64, 1),
    ("stop_words", DataType::Bytes, -1),
    ("stream", DataType::Bool, 1),
    ("bad_words", DataType::Bytes, -1),
    ("min_tokens", DataType::Int32, 1),
    ("repetition_penalty", DataType::Fp32, 1),
    ("presence_penalty", DataType::Fp32, 1),
    ("frequency_penalty", DataType::Fp32, 1),
];

/// What one request asks for.
pub(super) struct TextRequest {
    pub(super) text: String,
    pub(super) sampling: Sampling,
    pub(super) stop: StopRules,
    pub(super) bad_words: Vec<String>,
    pub(super) stream: bool,
}

impl TextRequest {
    /// Reads the inputs of `request`; `default_tokens` is the limit where it gives none.
    pub(super) fn read(request: &Request, eos_ids: &[u32], default_tokens: usize) -> Result<Self> {
        let mut texts = request.input("text_input")?.texts()?;
        let (Some(text), true) = (texts.pop(), texts.is_empty()) else {
            return Err(Error::invalid("input 'text_input' must have exactly one element"));
        };
        let max_tokens = at_least(request, "max_tokens", 1)?.unwrap_or(default_tokens);
        let stop = StopRules::new(eos_ids, max_tokens)
            .map_err(|e| Error::invalid(format!("input 'max_tokens': {e}")))?
            .with_strings(&words(request, "stop_words")?)
            .map_err(|e| Error::invalid(format!("input 'stop_words': {e}")))?;
        Ok(Self {
            text,
            sampling: sampling(request)?,
            stop,
            bad_words: words(request, "bad_words")?,
            stream: value(request, "stream")?.unwrap_or(false),
        })
    }
}

/// Who gives none of temperature, `top_k` and `top_p` gets the best token each time.
fn sampling(request: &Request) -> Result<Sampling> {
    let drawn = SamplingParams::new(&SamplingRequest {
        temperature: value(request, "temperature")?,
        top_k: value::<i32>(request, "top_k")?.map(i64::from),
        top_p: value(request, "top_p")?,
        random_seed: value(request, "random_seed")?,
    })
    .map_err(|e| Error::invalid(format!("input '{}': {e}", e.name)))?;
    let number = |name: &str, low: f32, high: f32| -> Result<Option<f32>> {
        let number = value::<f32>(request, name)?;
        match number.filter(|number| !(low..=high).contains(number)) {
            Some(x) => Err(Error::invalid(format!("input '{name}' is {x}, it must be from {low} to {high}"))),
            None => Ok(number),
        }
    };
    let plain = Sampling::default();
    Ok(Sampling {
        temperature: drawn.temperature(),
        top_k: u32::try_from(drawn.top_k()).unwrap_or(u32::MAX),
        top_p: drawn.top_p(),
        seed: drawn.seed(),
        min_tokens: at_least(request, "min_tokens", 0)?.unwrap_or(plain.min_tokens),
        repetition_penalty: number("repetition_penalty", 0.01, 100.0)?.unwrap_or(plain.repetition_penalty),
        presence_penalty: number("presence_penalty", -100.0, 100.0)?.unwrap_or(plain.presence_penalty),
        frequency_penalty: number("frequency_penalty", -100.0, 100.0)?.unwrap_or(plain.frequency_penalty),
        ..plain
    })
}

/// A whole number of at least `least`.
fn at_least(request: &Request, name: &str, least: i32) -> Result<Option<usize>> {
    let Some(n) = value::<i32>(request, name)? else { return Ok(None) };
    let fits = usize::try_from(n).ok().filter(|_| n >= least);
    fits.map(Some)
        .ok_or_else(|| Error::invalid(format!("input '{name}' is {n}, it must be at least {least}")))
}

fn words(request: &Request, name: &str) -> Result<Vec<String>> {
    request.optional_input(name).map_or_else(|| Ok(Vec::new()), |input| input.texts())
}

/// The only element of an optional input.
fn value<T: Element>(request: &Request, name: &str) -> Result<Option<T>> {
    request.optional_input(name).map(|input| input.value()).transpose()
}
