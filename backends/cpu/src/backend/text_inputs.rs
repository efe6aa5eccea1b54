//! The optional inputs of a request for text, checked. Errors name the input.

use trireme_llm::sampling::{SamplingParams, SamplingRequest};
use trireme_llm::stop::StopRules;
use trireme_sdk::{Element, Error, Request, Result};

/// What one request asks for.
pub(super) struct TextRequest {
    pub(super) text: String,
    pub(super) sampling: SamplingParams,
    pub(super) stop: StopRules,
    pub(super) stream: bool,
}

impl TextRequest {
    /// Reads the inputs of `request`; `default_tokens` is the limit where it gives none.
    pub(super) fn read(request: &Request, eos_ids: &[u32], default_tokens: usize) -> Result<Self> {
        let mut texts = request.input("text_input")?.texts()?;
        let (Some(text), true) = (texts.pop(), texts.is_empty()) else {
            return Err(Error::invalid("input 'text_input' must have exactly one element"));
        };
        let sampling = SamplingParams::new(&SamplingRequest {
            temperature: value(request, "temperature")?,
            top_k: value::<i32>(request, "top_k")?.map(i64::from),
            top_p: value(request, "top_p")?,
            random_seed: value(request, "random_seed")?,
        })
        .map_err(|e| Error::invalid(format!("input '{}': {e}", e.name)))?;
        let max_tokens = match value::<i32>(request, "max_tokens")? {
            None => default_tokens,
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| Error::invalid(format!("input 'max_tokens' is {n}, it must be at least 1")))?,
        };
        let words = match request.optional_input("stop_words") {
            Some(input) => input.texts()?,
            None => Vec::new(),
        };
        let stop = StopRules::new(eos_ids, max_tokens)
            .map_err(|e| Error::invalid(format!("input 'max_tokens': {e}")))?
            .with_strings(&words)
            .map_err(|e| Error::invalid(format!("input 'stop_words': {e}")))?;
        Ok(Self { text, sampling, stop, stream: value(request, "stream")?.unwrap_or(false) })
    }
}

/// The only element of an optional input.
fn value<T: Element>(request: &Request, name: &str) -> Result<Option<T>> {
    request.optional_input(name).map(|input| input.value()).transpose()
}
