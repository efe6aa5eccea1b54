//! A loaded decoder.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_sdk::{Error, Host, ModelContext, Result};

use super::instance::DecoderInstance;
use super::metrics::ModelMetrics;
use super::sizes::Sizes;
use super::text::TextInputDoor;
use crate::chat::ChatTemplate;
use crate::checkpoint::{Architecture, Checkpoint};
use crate::engine::{CoreStats, Engine, EngineOptions, Failure, Meter, Policy, Tally};
use crate::executor::Executor;
use crate::grammar::GrammarFactory;
use crate::openai::{Abilities, TextDoor};
use crate::params::Parameters;
use crate::tensors::TokenDoor;
use crate::tokenizer::Tokenizer;

/// Makes the executor of a model. Called while the model loads, and again if an executor has failed.
pub type MakeExecutor = Box<dyn Fn(&Sizes) -> Result<Box<dyn Executor>> + Send + Sync>;

/// A decoder with its engine and its front doors.
pub struct Decoder(Arc<Shared>);

/// What the instances of a model share.
pub(super) struct Shared {
    name: String,
    host: Host,
    sizes: Sizes,
    options: EngineOptions,
    metrics: Option<Arc<ModelMetrics>>,
    make: MakeExecutor,
    /// `None` only while one is made anew.
    engine: Mutex<Option<Arc<Engine>>>,
    pub(super) stream_interval: NonZeroU32,
    /// Without a tokenizer there is no text: neither OpenAI's API nor answers of a form.
    pub(super) door: Option<TextDoor>,
    pub(super) grammars: Option<GrammarFactory>,
    /// Present if requests are token ids.
    pub(super) tokens: Option<TokenDoor>,
    /// Present if requests are texts.
    pub(super) text: Option<TextInputDoor>,
}

/// An error of loading: the files are at fault, or what the configuration asks of them.
fn unusable(error: impl std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

impl Decoder {
    /// Makes the executor of a checkpoint's model and starts its engine.
    ///
    /// # Errors
    /// INVALID_ARG that names the file or the parameter; whatever `make` says.
    pub fn load(
        context: &ModelContext,
        checkpoint: &Checkpoint,
        params: &Parameters,
        make: MakeExecutor,
    ) -> Result<Self> {
        let Architecture::Decoder(model) = &checkpoint.architecture else {
            return Err(Error::invalid("the checkpoint is an encoder, which generates no text"));
        };
        let config = &context.config;
        let takes_ids = TokenDoor::is_for(config);
        let tokenizer = match checkpoint.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(_) if takes_ids => None,
            Err(error) => return Err(unusable(error)),
        };
        let sizes = Sizes::read(config, params, model.max_position_embeddings)?;
        // A server that has no such metrics serves all the same.
        let metrics = ModelMetrics::new(context).map(Arc::new).inspect_err(|error| {
            context.host.warn(format!("model '{}' has no metrics of its engine: {error}", context.name));
        });
        let metrics = metrics.ok();
        let mut options = engine_options(context, params, &sizes, tokenizer.clone());
        options.meter = metrics.clone().map(|metrics| {
            Arc::new(move |stats: &CoreStats, tally: &Tally| metrics.show(stats, tally)) as Meter
        });
        let engine = start(&make, &sizes, &options, metrics.as_deref())?;
        let (vocab_size, max_context) = (engine.info().vocab_size, engine.capacity());
        let eos_ids = &model.eos_token_ids;
        let defaults = checkpoint.generation_defaults();
        let given = params.count("max_tokens").filter(|_| params.is_given("max_tokens"));
        let max_tokens = given.or(defaults.max_new_tokens).or(params.count("max_tokens")).unwrap_or(256);

        let grammars =
            tokenizer.as_ref().map(|tokenizer| GrammarFactory::new(tokenizer, eos_ids, vocab_size));
        // The model writes all the same.
        if let Some(Err(error)) = &grammars {
            context.host.warn(format!("model '{}': {error}", context.name));
        }
        let grammars = grammars.and_then(std::result::Result::ok);
        let can = Abilities { guided: grammars.is_some(), ..Abilities::ALL };
        let template = checkpoint.chat_template();
        let template = || template.as_ref().map(ChatTemplate::new).transpose().map_err(unusable);
        let door = match &tokenizer {
            Some(tokenizer) => Some(TextDoor {
                model: context.name.clone(),
                tokenizer: tokenizer.clone(),
                template: template()?,
                eos_ids: eos_ids.clone(),
                vocab_size,
                max_context,
                defaults: defaults.sampling(),
                can,
            }),
            None => None,
        };
        let tokens = match takes_ids {
            true => {
                let door = TokenDoor::new(config, eos_ids, (vocab_size, max_context), max_tokens, can)?;
                Some(match &tokenizer {
                    Some(tokenizer) => door.in_whole_characters(tokenizer),
                    None => door,
                })
            }
            false => None,
        };
        // Conversations need the template even where `text_input` is taken as it is.
        let text = match tokenizer.filter(|_| !takes_ids) {
            Some(tokenizer) => {
                let template = if params.text("chat_template") == Some("none") { None } else { template()? };
                let limits = (max_tokens, max_context);
                Some(TextInputDoor::new(config, tokenizer, template, eos_ids.clone(), limits))
            }
            None => None,
        };
        let interval = params.count("stream_interval").and_then(|n| u32::try_from(n).ok());
        Ok(Self(Arc::new(Shared {
            name: context.name.clone(),
            host: context.host.clone(),
            sizes,
            options,
            metrics,
            make,
            engine: Mutex::new(Some(Arc::new(engine))),
            stream_interval: interval.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
            door,
            grammars,
            tokens,
            text,
        })))
    }

    /// One more place that requests come in at.
    pub fn instance(&self) -> DecoderInstance {
        DecoderInstance::new(Arc::clone(&self.0))
    }

    /// The endpoints of OpenAI's API that are answered.
    pub fn openai_endpoints(&self) -> &[&str] {
        self.0.door.as_ref().map_or(&[], TextDoor::endpoints)
    }
}

impl Shared {
    /// The engine. One that has failed is made anew.
    pub(super) fn engine(&self) -> Result<Arc<Engine>> {
        let mut place = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*place {
            let Some(Failure { why, device_lost }) = engine.failure() else { return Ok(Arc::clone(engine)) };
            if device_lost {
                return Err(Error::unavailable(why));
            }
            self.host.error(format!("model '{}': its engine has failed and is made anew: {why}", self.name));
            // Its memory must be free before.
            *place = None;
        }
        let made = start(&self.make, &self.sizes, &self.options, self.metrics.as_deref());
        let engine =
            made.map_err(|error| Error::unavailable(format!("the engine cannot be made anew: {error}")))?;
        let engine = Arc::new(engine);
        *place = Some(Arc::clone(&engine));
        Ok(engine)
    }
}

fn start(
    make: &MakeExecutor,
    sizes: &Sizes,
    options: &EngineOptions,
    metrics: Option<&ModelMetrics>,
) -> Result<Engine> {
    let engine = Engine::start(make(sizes)?, options.clone()).map_err(unusable)?;
    if let Some(metrics) = metrics {
        metrics.show_memory(engine.memory());
    }
    Ok(engine)
}

fn engine_options(
    context: &ModelContext,
    params: &Parameters,
    sizes: &Sizes,
    tokenizer: Option<Tokenizer>,
) -> EngineOptions {
    let (host, lost, name) = (context.host.clone(), context.host.clone(), context.name.clone());
    let plain = EngineOptions::new(Arc::new(move || host.now_ns()));
    // The engine's queue is the model's: an instance takes what comes.
    let queue = &context.config.json()["dynamic_batching"]["default_queue_policy"]["max_queue_size"];
    let max_queue = queue.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    EngineOptions {
        policy: match params.text("batch_scheduler_policy") {
            Some("max_utilization") => Policy::MaxUtilization,
            _ => Policy::GuaranteedNoEvict,
        },
        device_lost: Some(Arc::new(move |why: &str| lost.device_lost(format!("model '{name}': {why}")))),
        max_num_tokens: sizes.max_num_tokens,
        max_batch_size: sizes.max_batch_size,
        max_waiting: max_queue.unwrap_or(plain.max_waiting),
        prefix_reuse: params.flag("enable_kv_cache_reuse").unwrap_or(plain.prefix_reuse),
        chunked_prefill: params.flag("enable_chunked_context").unwrap_or(plain.chunked_prefill),
        profiles: sizes.profiles.clone(),
        tokenizer,
        ..plain
    }
}
