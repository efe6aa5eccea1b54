//! Decoders as models: `text_input` to `text_output`, one request at a time.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use trireme_llm::chat::{ChatMessage, ChatOptions, ChatTemplate};
use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::generate::{DecoderModel, GenerateError, GenerateRequest, generate};
use trireme_llm::grammar::GrammarFactory;
use trireme_llm::openai::{Abilities, OneByOne, Sampling, TextDoor};
use trireme_llm::params::Parameters;
use trireme_llm::tensors::TokenDoor;
use trireme_llm::tokenizer::Tokenizer;
use trireme_sdk::{
    Config, ConfigPatch, DataType, Error, Request, Responder, Response, Result, TensorConfig, Verdict,
};

use super::text_inputs::TextRequest;
use super::unusable;
use crate::decoder::{LlamaModel, LogitsWanted};
use crate::error::EngineError;
use crate::kv::KvCache;
use crate::options::Options;

/// A decoder with all that turns text into tokens and back.
pub struct GenerateModel {
    llama: LlamaModel,
    shared: Arc<Shared>,
}

struct Shared {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    eos_ids: Vec<u32>,
    door: TextDoor,
    grammars: GrammarFactory,
    /// Present if requests are token ids.
    tokens: Option<TokenDoor>,
    max_tokens: usize,
    max_context: usize,
    /// Does a response have a batch dimension?
    batched: bool,
    decoupled: bool,
}

/// Runs one text after another.
pub struct GenerateInstance {
    sequence: Sequence,
    shared: Arc<Shared>,
}

/// A decoder with the cache of the text that it is at.
struct Sequence {
    llama: LlamaModel,
    cache: KvCache,
    max_context: usize,
}

/// What a configuration that is left open becomes.
pub(super) fn config() -> ConfigPatch {
    let tensor = |name: &str, data_type, dims: &[i64], optional| TensorConfig {
        name: name.to_owned(),
        data_type,
        dims: dims.to_vec(),
        optional,
    };
    ConfigPatch::new()
        .input(tensor("text_input", DataType::Bytes, &[1], false))
        .input(tensor("max_tokens", DataType::Int32, &[1], true))
        .input(tensor("temperature", DataType::Fp32, &[1], true))
        .input(tensor("top_k", DataType::Int32, &[1], true))
        .input(tensor("top_p", DataType::Fp32, &[1], true))
        .input(tensor("random_seed", DataType::Uint64, &[1], true))
        .input(tensor("stop_words", DataType::Bytes, &[-1], true))
        .input(tensor("stream", DataType::Bool, &[1], true))
        .output(tensor("text_output", DataType::Bytes, &[1], false))
        .decoupled(true)
}

impl GenerateModel {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        options: Options,
        params: &Parameters,
        config: &Config,
        name: &str,
    ) -> Result<Self> {
        // Conversations need the template even where `text_input` is taken as it is.
        let conversation = checkpoint.chat_template();
        let conversation = conversation.as_ref().map(ChatTemplate::new).transpose().map_err(unusable)?;
        let template = match params.text("chat_template") {
            Some("none") => None,
            _ => checkpoint.chat_template(),
        };
        let template = template.as_ref().map(ChatTemplate::new).transpose().map_err(unusable)?;
        let tokenizer = checkpoint.tokenizer().map_err(unusable)?;
        let llama = LlamaModel::load(checkpoint, options).map_err(unusable)?;
        let own = llama.config().max_position_embeddings;
        let max_context = match params.count("max_context") {
            Some(n) if n > own => {
                return Err(Error::invalid(format!(
                    "parameter 'max_context' is {n}, the model was trained for at most {own}"
                )));
            }
            Some(n) => n,
            None => own,
        };
        let door = TextDoor {
            model: name.to_owned(),
            tokenizer: tokenizer.clone(),
            template: conversation,
            eos_ids: llama.config().eos_token_ids.clone(),
            vocab_size: llama.config().vocab_size,
            max_context,
            defaults: Sampling::default(),
            can: Abilities::ALL,
        };
        let stated = config.parameter::<String>("max_tokens")?.is_none().then_some(checkpoint.max_new_tokens);
        let max_tokens = stated.flatten().or(params.count("max_tokens")).unwrap_or(256);
        let tokens = match TokenDoor::is_for(config) {
            true => {
                let sizes = (llama.config().vocab_size, max_context);
                let eos_ids = &llama.config().eos_token_ids;
                let door = TokenDoor::new(config, eos_ids, sizes, max_tokens, Abilities::ALL)?;
                Some(door.in_whole_characters(&tokenizer))
            }
            false => None,
        };
        let eos_ids = &llama.config().eos_token_ids;
        let grammars =
            GrammarFactory::new(&tokenizer, eos_ids, llama.config().vocab_size).map_err(unusable)?;
        let shared = Shared {
            door,
            grammars,
            tokens,
            tokenizer,
            template,
            eos_ids: llama.config().eos_token_ids.clone(),
            max_tokens,
            max_context,
            batched: config.max_batch_size() > 0,
            decoupled: config.is_decoupled(),
        };
        Ok(Self { llama, shared: Arc::new(shared) })
    }

    pub(super) fn openai_endpoints(&self) -> &[&str] {
        self.shared.door.endpoints()
    }

    pub(super) fn instance(&self) -> GenerateInstance {
        let llama = self.llama.clone();
        let cache = llama.new_cache();
        let sequence = Sequence { llama, cache, max_context: self.shared.max_context };
        GenerateInstance { sequence, shared: Arc::clone(&self.shared) }
    }
}

impl GenerateInstance {
    /// Answers one request, piece by piece if it wants a stream.
    pub(super) fn execute(&mut self, mut request: Request) {
        let shared = Arc::clone(&self.shared);
        if request.openai().is_some() {
            let mut engine = OneByOne {
                model: &mut self.sequence,
                tokenizer: &shared.tokenizer,
                grammars: &shared.grammars,
            };
            return shared.door.answer(request, &mut engine);
        }
        if let Some(tokens) = &shared.tokens {
            let mut engine = OneByOne {
                model: &mut self.sequence,
                tokenizer: &shared.tokenizer,
                grammars: &shared.grammars,
            };
            return tokens.answer(request, &mut engine);
        }
        match TextRequest::read(&request, &shared.eos_ids, shared.max_tokens) {
            Err(error) => request.fail(error),
            Ok(asked) if asked.stream && !shared.decoupled => request.fail(Error::invalid(
                "input 'stream' is true, but the model is not decoupled: it gives one response a request",
            )),
            Ok(asked) => {
                request.responder().computing();
                self.answer(&shared, request.into_responder(), &asked);
            }
        }
    }

    fn answer(&mut self, shared: &Shared, mut responder: Responder, asked: &TextRequest) {
        let mut text = String::new();
        let outcome = shared.prompt(&asked.text).and_then(|prompt| {
            let wanted = GenerateRequest { prompt: &prompt, sampling: asked.sampling, stop: &asked.stop };
            // Both closures look at the responder; only the second sends.
            let to = std::cell::RefCell::new(&mut responder);
            let piece = |piece: &str| {
                if !asked.stream {
                    text.push_str(piece);
                    return ControlFlow::Continue(());
                }
                shared
                    .response(piece)
                    .map_or(ControlFlow::Break(()), |response| send(&mut to.borrow_mut(), response))
            };
            let cancelled = || to.borrow().is_cancelled();
            generate(&mut self.sequence, &shared.tokenizer, &wanted, cancelled, piece).map_err(failure)
        });
        responder.computed();
        match outcome {
            Err(error) => responder.fail(error),
            Ok(_) if responder.is_cancelled() => {
                responder.fail(Error::cancelled("the request was cancelled"))
            }
            Ok(_) if asked.stream => responder.close(),
            Ok(_) => match shared.response(&text) {
                Ok(response) => responder.finish(response),
                Err(error) => responder.fail(error),
            },
        }
    }
}

impl Shared {
    fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("input 'text_input': {e}"));
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

    fn response(&self, text: &str) -> Result<Response> {
        let shape: &[i64] = if self.batched { &[1, 1] } else { &[1] };
        Response::new().bytes("text_output", shape, &[text])
    }
}

/// Sends a piece and waits until the next one is welcome.
fn send(responder: &mut Responder, response: Response) -> ControlFlow<()> {
    match responder.send(response) {
        Verdict::Continue => ControlFlow::Continue(()),
        Verdict::Cancelled | Verdict::Closed => ControlFlow::Break(()),
        Verdict::Pause => {
            let (writable, wait) = mpsc::channel();
            responder.on_writable(move || {
                // Nobody listens any more: then nobody waits either.
                let _ = writable.send(());
            });
            // The server calls back in any case, when the request is cancelled too.
            let _ = wait.recv();
            ControlFlow::Continue(())
        }
    }
}

fn failure(error: GenerateError<EngineError>) -> Error {
    match error {
        GenerateError::InvalidArgument(text) => Error::invalid(format!("input 'text_input': {text}")),
        other => Error::internal(other.to_string()),
    }
}

impl DecoderModel for Sequence {
    type Error = EngineError;

    fn vocab_size(&self) -> usize {
        self.llama.config().vocab_size
    }

    fn max_context(&self) -> usize {
        self.max_context
    }

    fn prefill(&mut self, ids: &[u32]) -> std::result::Result<&[f32], EngineError> {
        self.cache.truncate(0);
        self.llama.forward(&mut self.cache, ids, LogitsWanted::Last)
    }

    fn step(&mut self, id: u32) -> std::result::Result<&[f32], EngineError> {
        self.llama.forward(&mut self.cache, &[id], LogitsWanted::Last)
    }
}
