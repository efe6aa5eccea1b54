//! ONNX models through ONNX Runtime on the CPU. The library of ONNX Runtime is loaded when the first such model is
//! ([`library`]); nothing of it is needed to build.
//!
//! ```text
//! config.pbtxt ─▶ options ─▶ session (one an instance) ◀─ gather ◀─ batch of requests
//!                    ▲                    │
//!        signature ──┘                    └─▶ scatter ─▶ answers
//! ```
#![forbid(unsafe_code)]

mod failure;
mod gather;
mod instance;
mod library;
mod options;
mod scatter;
mod signature;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use trireme_sdk::{
    Backend, BackendContext, ConfigPatch, Error, Host, InstanceContext, Model, ModelContext, Result,
};

use crate::failure::Log;
use crate::instance::OnnxInstance;
use crate::library::Settings;
use crate::options::Options;
use crate::signature::{Layout, Signature};

/// The file of a model that names none.
const FILE: &str = "model.onnx";

/// The backend: ONNX Runtime is loaded.
pub struct OnnxRuntime {
    settings: Settings,
    environment: Environment,
}

/// A model and version.
pub struct OnnxModel {
    name: String,
    host: Host,
    source: Source,
    layout: Arc<Layout>,
    /// The session that showed at load that the model works: it becomes that of the first instance.
    first: Mutex<Option<Session>>,
}

/// What sessions of a model are opened from.
struct Source {
    file: PathBuf,
    options: Options,
    environment: Environment,
}

impl Source {
    fn open(&self) -> Result<Session> {
        open(&self.file, self.options.session(&self.environment))
    }
}

impl Backend for OnnxRuntime {
    type Model = OnnxModel;

    fn create(context: BackendContext) -> Result<Self> {
        let settings = Settings::read(&context.settings)?;
        let environment = library::load(&settings, &context.host)?;
        Ok(Self { settings, environment })
    }

    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        let file = file(context)?;
        let session = open(&file, Options::plain_session(&self.environment))?;
        Signature::of(&session)?.complete(&context.config, self.settings.default_max_batch_size).map(Some)
    }

    fn load(&self, context: ModelContext) -> Result<OnnxModel> {
        let (file, options) = (file(&context)?, Options::read(&context.config)?);
        for warning in options.warnings() {
            context.host.warn(format!("model '{}': {warning}", context.name));
        }
        if self.settings.global_pool && options.sizes_threads() {
            context.host.warn(format!(
                "model '{}': the thread counts of its parameters have no effect, enable-global-threadpool is on",
                context.name
            ));
        }
        let source = Source { file, options, environment: self.environment.clone() };
        let first = source.open()?;
        let layout = Arc::new(Signature::of(&first)?.layout(&context.config)?);
        for name in layout.needed_optional() {
            context.host.warn(format!(
                "model '{}': input '{name}' is optional in the configuration, but the model has no default for it: \
                 requests without it are refused",
                context.name
            ));
        }
        let (name, host, first) = (context.name, context.host, Mutex::new(Some(first)));
        Ok(OnnxModel { name, host, source, layout, first })
    }
}

impl Model for OnnxModel {
    type Instance = OnnxInstance;

    fn create_instance(&self, _: InstanceContext) -> Result<OnnxInstance> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let session = match first {
            Some(session) => session,
            None => self.source.open()?,
        };
        let run = self.source.options.run();
        let run = run.map_err(|error| Error::internal(format!("ONNX Runtime: {error}")))?;
        let log = Log { host: self.host.clone(), model: self.name.clone() };
        Ok(OnnxInstance::new(session, run, Arc::clone(&self.layout), log))
    }
}

fn file(context: &ModelContext) -> Result<PathBuf> {
    let name = context.config.json()["default_model_filename"].as_str().filter(|name| !name.is_empty());
    let path = context.version_dir.join(name.unwrap_or(FILE));
    // A model with weights in files of their own is a directory.
    let path = if path.is_dir() { path.join(FILE) } else { path };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::invalid(format!(
        "model '{}' has no file '{}'; another name is given by default_model_filename",
        context.name,
        path.display()
    )))
}

fn open(file: &Path, builder: ort::Result<SessionBuilder>) -> Result<Session> {
    let session = builder.and_then(|mut builder| builder.commit_from_file(file));
    session.map_err(|error| Error::invalid(format!("ONNX Runtime cannot load '{}': {error}", file.display())))
}

trireme_sdk::export_backend!(OnnxRuntime, name = "onnxruntime");
