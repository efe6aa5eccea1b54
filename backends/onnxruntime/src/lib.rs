//! ONNX models through ONNX Runtime on the CPU. The library of ONNX Runtime is loaded when the first such model is
//! ([`library`]); nothing of it is needed to build.
//!
//! ```text
//! config.pbtxt ─▶ options ─▶ session (one an instance) ◀─ gather ◀─ batch of requests
//!                    ▲                 │  ▲
//!        signature ──┘                 │  └── memory (a pool)
//!                                      └─▶ scatter ─▶ answers
//! ```
#![deny(unsafe_code)]

mod failure;
mod gather;
mod instance;
mod library;
mod memory;
mod options;
mod scatter;
mod signature;
mod version;

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
use crate::memory::Pool;
use crate::options::Options;
use crate::signature::{Layout, Signature};

/// The file of a model that names none.
const FILE: &str = "model.onnx";

/// The backend: ONNX Runtime is loaded.
pub struct OnnxRuntime {
    settings: Settings,
    environment: Environment,
    /// The version of ONNX Runtime.
    library: Option<(u32, u32)>,
    /// Whether sessions can have pools of memory.
    has_pools: bool,
}

/// A model and version.
pub struct OnnxModel {
    name: String,
    host: Host,
    source: Source,
    layout: Arc<Layout>,
    /// The session that showed at load that the model works: it becomes that of the first instance.
    first: Mutex<Option<Opened>>,
}

/// What sessions of a model are opened from.
struct Source {
    file: PathBuf,
    options: Options,
    environment: Environment,
    /// The version of ONNX Runtime.
    library: Option<(u32, u32)>,
    pooled: bool,
}

/// A session and the memory that is its own.
struct Opened {
    session: Session,
    pool: Option<Arc<Pool>>,
}

impl Source {
    fn open(&self) -> Result<Opened> {
        let pool = self.pooled.then(Pool::new);
        let commit = || open(&self.file, self.options.session(&self.environment, self.library, self.pooled));
        let session = match &pool {
            Some(pool) => pool.serve(commit),
            None => commit(),
        }?;
        Ok(Opened { session, pool })
    }
}

impl Backend for OnnxRuntime {
    type Model = OnnxModel;

    fn create(context: BackendContext) -> Result<Self> {
        let settings = Settings::read(&context.settings)?;
        let (environment, library) = library::load(&settings, &context.host)?;
        let registered = memory::register(&environment);
        if let Err(error) = &registered {
            context.host.warn(format!("models run on ONNX Runtime's own memory, in small pages: {error}"));
        }
        Ok(Self { settings, environment, library, has_pools: registered.is_ok() })
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
        let pooled = self.has_pools && options.pooled();
        let source =
            Source { file, options, environment: self.environment.clone(), library: self.library, pooled };
        let first = source.open()?;
        let layout = Arc::new(Signature::of(&first.session)?.layout(&context.config)?);
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
        let Opened { session, pool } = match first {
            Some(opened) => opened,
            None => self.source.open()?,
        };
        let run = self.source.options.run();
        let run = run.map_err(|error| Error::internal(format!("ONNX Runtime: {error}")))?;
        let log = Log { host: self.host.clone(), model: self.name.clone() };
        Ok(OnnxInstance::new(session, run, pool, Arc::clone(&self.layout), log))
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
