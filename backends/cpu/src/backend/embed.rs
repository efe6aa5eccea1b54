//! Encoders as models: `text` to `embedding`, all texts of a batch in one pass.

use std::sync::Arc;

use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::openai::EmbedDoor;
use trireme_llm::tokenizer::Tokenizer;
use trireme_sdk::{Config, ConfigPatch, DataType, Error, Request, Response, Result, TensorConfig};

use super::unusable;
use crate::bert::BertModel;
use crate::options::Options;

/// Largest batch that is proposed where the configuration leaves it open.
const MAX_BATCH: u32 = 64;

/// An encoder and its tokenizer.
pub struct EmbedModel {
    bert: BertModel,
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    door: EmbedDoor,
    layout: OutputLayout,
}

/// How the vectors of a request are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OutputLayout {
    /// `[texts, hidden]`: the model batches, or its output has a dimension for the texts.
    Rows,
    /// `[hidden]`: one text a request.
    Single,
}

/// Runs batches.
pub struct EmbedInstance {
    bert: BertModel,
    shared: Arc<Shared>,
}

/// What a configuration that is left open becomes.
pub(super) fn config(hidden_size: usize) -> ConfigPatch {
    let tensor = |name: &str, data_type, dims| TensorConfig {
        name: name.to_owned(),
        data_type,
        dims,
        optional: false,
    };
    ConfigPatch::new()
        .max_batch_size(MAX_BATCH)
        .input(tensor("text", DataType::Bytes, vec![1]))
        .output(tensor("embedding", DataType::Fp32, vec![i64::try_from(hidden_size).unwrap_or(-1)]))
        .dynamic_batching()
}

impl EmbedModel {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        options: Options,
        config: &Config,
        name: &str,
    ) -> Result<Self> {
        let tokenizer = checkpoint.tokenizer().map_err(unusable)?;
        let bert = BertModel::load(checkpoint, options).map_err(unusable)?;
        let rank = config.outputs()?.first().map_or(1, |output| output.dims.len());
        let layout =
            if config.max_batch_size() > 0 || rank > 1 { OutputLayout::Rows } else { OutputLayout::Single };
        let door = EmbedDoor {
            model: name.to_owned(),
            tokenizer: tokenizer.clone(),
            vocab_size: bert.config().vocab_size,
            max_tokens: bert.config().max_tokens,
            dimensions: bert.config().hidden_size,
        };
        Ok(Self { bert, shared: Arc::new(Shared { tokenizer, door, layout }) })
    }

    pub(super) fn instance(&self) -> EmbedInstance {
        EmbedInstance { bert: self.bert.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl EmbedInstance {
    /// Answers all requests. A bad request fails alone.
    pub(super) fn execute(&mut self, batch: Vec<Request>) {
        let mut texts = Vec::new();
        let mut taken = Vec::with_capacity(batch.len());
        let mut calls = Vec::new();
        for mut request in batch {
            if request.is_cancelled() {
                request.fail(cancelled());
                continue;
            }
            if request.openai().is_some() {
                calls.push(request);
                continue;
            }
            match self.shared.tokens(&request, self.bert.config().max_tokens) {
                Err(error) => request.fail(error),
                Ok(tokens) => {
                    request.responder().computing();
                    taken.push((request, tokens.len()));
                    texts.extend(tokens);
                }
            }
        }
        self.answer(calls);
        let vectors = self.bert.embed(&texts);
        let mut vectors = match vectors {
            Ok(vectors) => vectors.into_iter(),
            Err(error) => {
                let error = Error::internal(error.to_string());
                taken.into_iter().for_each(|(request, _)| request.fail(error.clone()));
                return;
            }
        };
        for (mut request, n) in taken {
            request.responder().computed();
            let rows: Vec<Vec<f32>> = vectors.by_ref().take(n).collect();
            match self.shared.response(&rows, self.bert.config().hidden_size) {
                Ok(response) => request.respond(response),
                Err(error) => request.fail(error),
            }
        }
    }
}

impl EmbedInstance {
    /// Answers calls of OpenAI's API. Their texts run together, so many at a time that their activations stay small.
    fn answer(&mut self, calls: Vec<Request>) {
        let mut asked = Vec::with_capacity(calls.len());
        // Each text with the call that it is of.
        let (mut texts, mut owners) = (Vec::new(), Vec::new());
        for mut request in calls {
            match request.openai().map(|call| self.shared.door.read(&call)) {
                Some(Ok(ask)) => {
                    request.responder().computing();
                    owners.extend(ask.texts.iter().map(|_| asked.len()));
                    texts.extend(ask.texts.iter().cloned());
                    asked.push((request, ask));
                }
                Some(Err(error)) => request.into_responder().fail_json(&error),
                // Only calls come here; a dropped request is answered by the host.
                None => drop(request),
            }
        }
        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
        for (texts, owners) in texts.chunks(MAX_BATCH as usize).zip(owners.chunks(MAX_BATCH as usize)) {
            if owners.iter().all(|owner| asked.get(*owner).is_none_or(|(request, _)| request.is_cancelled()))
            {
                rows.extend(texts.iter().map(|_| Vec::new()));
                continue;
            }
            match self.bert.embed(texts) {
                Ok(vectors) => rows.extend(vectors),
                Err(error) => {
                    let error = Error::internal(error.to_string());
                    asked.into_iter().for_each(|(request, _)| request.fail(error.clone()));
                    return;
                }
            }
        }
        let mut rows = rows.into_iter();
        for (mut request, ask) in asked {
            let rows: Vec<Vec<f32>> = rows.by_ref().take(ask.texts.len()).collect();
            if rows.iter().any(Vec::is_empty) || request.is_cancelled() {
                request.fail(cancelled());
                continue;
            }
            request.responder().computed();
            request.into_responder().finish_json(&self.shared.door.object(&ask, &rows));
        }
    }
}

fn cancelled() -> Error {
    Error::cancelled("the request was cancelled")
}

impl Shared {
    /// The tokens of each of a request's texts.
    fn tokens(&self, request: &Request, limit: usize) -> Result<Vec<Vec<u32>>> {
        let texts = request.input("text")?.texts()?;
        let batch = request.batch_size() as usize;
        let fits = match self.layout {
            OutputLayout::Single => texts.len() == 1,
            OutputLayout::Rows => batch <= 1 || texts.len() == batch,
        };
        if !fits {
            let n = texts.len();
            return Err(Error::invalid(format!(
                "input 'text' has {n} elements, expected is one for each row"
            )));
        }
        let tokens = |(i, text): (usize, &String)| {
            let invalid = |what: String| Error::invalid(format!("input 'text', element {i}: {what}"));
            if self.tokenizer.exceeds(text, limit) {
                return Err(invalid(format!("has more than the {limit} tokens that the model reads")));
            }
            let ids = self.tokenizer.encode(text, true).map_err(|e| invalid(e.to_string()))?;
            match ids.len() {
                0 => Err(invalid("is empty".into())),
                n if n > limit => Err(invalid(format!("has {n} tokens, the model reads at most {limit}"))),
                _ => Ok(ids),
            }
        };
        texts.iter().enumerate().map(tokens).collect()
    }

    fn response(&self, rows: &[Vec<f32>], hidden: usize) -> Result<Response> {
        let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let shape = match self.layout {
            OutputLayout::Rows => vec![size(rows.len()), size(hidden)],
            OutputLayout::Single => vec![size(hidden)],
        };
        Response::new().tensor("embedding", &shape, rows.concat())
    }
}
