//! Models of texts: `text_input` to `text_output`.

mod inputs;
mod outputs;

use trireme_sdk::{Config, ConfigPatch, DataType, Error, Request, Result, TensorConfig};

use crate::chat::{ChatMessage, ChatOptions, ChatTemplate};
use crate::openai::{Ask, Generator};
use crate::tokenizer::Tokenizer;
use inputs::TextRequest;
use outputs::TextReceiver;

/// What a configuration that is left open becomes.
pub fn text_config() -> ConfigPatch {
    let tensor = |name: &str, data_type, dims: &[i64], optional| TensorConfig {
        name: name.to_owned(),
        data_type,
        dims: dims.to_vec(),
        optional,
    };
    let patch = ConfigPatch::new().input(tensor("text_input", DataType::Bytes, &[1], false));
    let patch = inputs::OPTIONAL
        .iter()
        .fold(patch, |patch, &(name, data_type, dim)| patch.input(tensor(name, data_type, &[dim], true)));
    patch.output(tensor("text_output", DataType::Bytes, &[1], false)).decoupled(true)
}

/// What is needed to read requests for text and to write their answers.
pub(super) struct TextInputDoor {
    tokenizer: Tokenizer,
    /// Makes the text a user's message; without one it is taken as it is.
    template: Option<ChatTemplate>,
    eos_ids: Vec<u32>,
    /// Tokens of an answer where a request does not say.
    max_tokens: usize,
    /// Tokens of a prompt and its answer.
    max_context: usize,
    batched: bool,
    decoupled: bool,
}

impl TextInputDoor {
    pub(super) fn new(
        config: &Config,
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        eos_ids: Vec<u32>,
        (max_tokens, max_context): (usize, usize),
    ) -> Self {
        let (batched, decoupled) = (config.max_batch_size() > 0, config.is_decoupled());
        Self { tokenizer, template, eos_ids, max_tokens, max_context, batched, decoupled }
    }

    /// Answers a request, piece by piece if it wants a stream.
    pub(super) fn answer(&self, request: Request, engine: &mut dyn Generator) {
        let (ask, stream) = match self.ask(&request) {
            Ok(read) => read,
            Err(error) => return request.fail(error),
        };
        let mut responder = request.into_responder();
        responder.computing();
        engine.run(ask, Box::new(TextReceiver::new(responder, stream, self.batched)));
    }

    fn ask(&self, request: &Request) -> Result<(Ask, bool)> {
        let asked = TextRequest::read(request, &self.eos_ids, self.max_tokens)?;
        if asked.stream && !self.decoupled {
            return Err(Error::invalid(
                "input 'stream' is true, but the model is not decoupled: it gives one response a request",
            ));
        }
        let bad_words = self.tokenizer.words(&asked.bad_words);
        let ask = Ask {
            prompt: self.prompt(&asked.text)?,
            sampling: asked.sampling,
            stop: asked.stop,
            ignore_eos: false,
            bad_words: bad_words.map_err(|error| Error::invalid(format!("input 'bad_words': {error}")))?,
            guide: None,
            n: 1,
            priority: request.priority(),
            deadline_ns: request.deadline_ns(),
            stream: asked.stream,
            text: true,
        };
        Ok((ask, asked.stream))
    }

    fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("input 'text_input': {e}"));
        if self.tokenizer.exceeds(text, self.max_context) {
            return Err(invalid(&format!(
                "it has more tokens than the {} that the model's context holds",
                self.max_context
            )));
        }
        let ids = match &self.template {
            Some(template) => {
                let messages = [ChatMessage::new("user", text)];
                let prompt = template.render(&messages, &ChatOptions::default()).map_err(|e| invalid(&e))?;
                self.tokenizer.encode(&prompt, false)
            }
            None => self.tokenizer.encode(text, true),
        };
        ids.map_err(|e| invalid(&e))
    }
}
