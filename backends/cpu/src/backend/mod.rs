//! The backend `cpu`: models from checkpoints, the task from their architecture.

mod embed;
mod generate;
mod memory;
mod params;
mod sizes;

use trireme_llm::checkpoint::{Architecture, Checkpoint};
use trireme_llm::openai::EMBED_ENDPOINTS;
use trireme_llm::params::Parameters;
use trireme_llm::serve::{Decoder, DecoderInstance, text_config};
use trireme_llm::tensors::TokenDoor;
use trireme_sdk::{
    Backend, BackendContext, ConfigPatch, Error, Instance, InstanceContext, Model, ModelContext, Request,
    Result,
};

use crate::options::Options;
use embed::{EmbedInstance, EmbedModel};

pub use params::PARAMETERS;

/// The backend of `libtrireme_cpu.so`.
pub struct CpuBackend;

/// A loaded model.
pub enum CpuModel {
    /// A decoder: text in, text out.
    Generate(Decoder),
    /// An encoder: texts in, vectors out.
    Embed(Box<EmbedModel>),
}

/// What runs a model.
pub enum CpuInstance {
    Generate(DecoderInstance),
    Embed(Box<EmbedInstance>),
}

trireme_sdk::export_backend!(CpuBackend, name = "cpu");

impl Backend for CpuBackend {
    type Model = CpuModel;

    fn create(_: BackendContext) -> Result<Self> {
        Ok(Self)
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        let (_, checkpoint) = open(context)?;
        if TokenDoor::is_for(&context.config) {
            return Ok(None);
        }
        Ok(Some(match &checkpoint.architecture {
            Architecture::Decoder(_) => text_config(),
            Architecture::Bert(c) => embed::config(c.hidden_size),
        }))
    }

    fn load(&self, context: ModelContext) -> Result<CpuModel> {
        let (params, checkpoint) = open(&context)?;
        for (name, why) in params.idle() {
            context.host.warn(format!("model '{}': parameter '{name}' has no effect: {why}", context.name));
        }
        let options = Options {
            threads: params.count("threads").unwrap_or(0),
            kv_dtype: params::kv_dtype(&params),
            ..Options::default()
        };
        Ok(match &checkpoint.architecture {
            Architecture::Decoder(_) => {
                CpuModel::Generate(generate::load(&context, &checkpoint, options, &params)?)
            }
            Architecture::Bert(_) => CpuModel::Embed(Box::new(EmbedModel::load(
                &checkpoint,
                options,
                &context.config,
                &context.name,
            )?)),
        })
    }
}

/// The parameters and the checkpoint that they name.
fn open(context: &ModelContext) -> Result<(Parameters, Checkpoint)> {
    let tables = [trireme_llm::params::PARAMETERS, PARAMETERS];
    let params =
        Parameters::read(&tables, context.config.parameters()).map_err(|e| Error::invalid(e.to_string()))?;
    let path = params.checkpoint(&context.version_dir);
    let checkpoint = Checkpoint::open_as(&path, params.text("load_format")).map_err(unusable)?;
    Ok((params, checkpoint))
}

/// An error of loading: the files are at fault, or what the configuration asks of them.
fn unusable(error: impl std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

impl Model for CpuModel {
    type Instance = CpuInstance;

    fn create_instance(&self, _: InstanceContext) -> Result<CpuInstance> {
        Ok(match self {
            Self::Generate(model) => CpuInstance::Generate(model.instance()),
            Self::Embed(model) => CpuInstance::Embed(Box::new(model.instance())),
        })
    }

    fn openai_endpoints(&self) -> &[&str] {
        match self {
            Self::Generate(model) => model.openai_endpoints(),
            Self::Embed(_) => EMBED_ENDPOINTS,
        }
    }
}

impl Instance for CpuInstance {
    fn execute(&mut self, batch: Vec<Request>) {
        match self {
            Self::Generate(instance) => instance.execute(batch),
            Self::Embed(instance) => instance.execute(batch),
        }
    }

    fn drain(&mut self) {
        if let Self::Generate(instance) = self {
            instance.drain();
        }
    }
}
