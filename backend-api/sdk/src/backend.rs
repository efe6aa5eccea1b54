use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use trireme_abi::{InstanceKind, MemoryKind};

use crate::config::{Config, ConfigPatch};
use crate::error::Result;
use crate::host::Host;
use crate::provider::DeviceProvider;
use crate::request::Request;

/// Where a backend can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// On a CPU only; `KIND_GPU` is refused.
    Cpu,
    /// On a GPU only.
    Gpu,
    /// On both.
    CpuAndGpu,
}

/// What a backend says of itself before it is created.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// Where it can run.
    pub devices: Devices,
    /// Whether `instance_group.kind` chooses the device; otherwise the backend decides by itself.
    pub kind_chooses_device: bool,
    /// How many requests an instance may hold unanswered after `execute` has returned. 0: an instance is busy until
    /// `execute` returns, and then free.
    pub max_in_flight: u32,
    /// Whether an instance on a GPU takes inputs that are in that GPU's memory. Without it all inputs are in the memory of
    /// the process when it gets them.
    pub reads_gpu: bool,
}

impl Info {
    pub(crate) fn input_kinds(self) -> u64 {
        let gpu = if self.reads_gpu { 1 << MemoryKind::GPU.0 } else { 0 };
        gpu | 1 << MemoryKind::CPU.0 | 1 << MemoryKind::CPU_PINNED.0
    }
}

impl Default for Info {
    fn default() -> Self {
        Self { devices: Devices::Cpu, kind_chooses_device: true, max_in_flight: 0, reads_gpu: false }
    }
}

/// What a backend is created with.
#[derive(Debug, Clone)]
pub struct BackendContext {
    /// The server.
    pub host: Host,
    /// The backend's settings: `{"cmdline": {"name": "value", …}}`, all values texts.
    pub settings: serde_json::Value,
}

/// What a model is loaded with.
#[derive(Debug, Clone)]
pub struct ModelContext {
    /// The server.
    pub host: Host,
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// The directory of `config.pbtxt`.
    pub model_dir: PathBuf,
    /// The directory of the version.
    pub version_dir: PathBuf,
    /// The configuration.
    pub config: Config,
}

/// What an instance is made with.
#[derive(Debug, Clone)]
pub struct InstanceContext {
    /// Its name.
    pub name: String,
    /// Its number within the model version, from 0.
    pub index: u32,
    /// Where it runs.
    pub kind: InstanceKind,
    /// On which device of that kind.
    pub device: i32,
}

/// A backend: one a library.
pub trait Backend: Sized + Send + Sync + 'static {
    /// What it loads.
    type Model: Model;

    /// What it needs and can do.
    fn info() -> Info {
        Info::default()
    }

    /// `[load-thread]` Once after the library is loaded.
    ///
    /// # Errors
    /// Whatever makes the backend unusable; shown to whoever loads a model with it.
    fn create(context: BackendContext) -> Result<Self>;

    /// The devices whose memory it serves, if it does; asked once, after [`Self::create`]. Of several providers of a device
    /// the first one serves it, until the process ends.
    fn device_provider(&self) -> Option<Arc<dyn DeviceProvider>> {
        None
    }

    /// `[load-thread]` What the backend knows of a model that its configuration leaves open. May run concurrently.
    ///
    /// # Errors
    /// The model cannot be served; shown to whoever loads it.
    fn complete_config(&self, context: &ModelContext) -> Result<Option<ConfigPatch>> {
        let _ = context;
        Ok(None)
    }

    /// `[load-thread]` Loads a model. May run concurrently.
    ///
    /// # Errors
    /// The model cannot be served; shown to whoever loads it.
    fn load(&self, context: ModelContext) -> Result<Self::Model>;
}

/// A model: one a name and version. Dropped after its instances.
pub trait Model: Send + Sync + 'static {
    /// What runs it.
    type Instance: Instance;

    /// `[instance-thread of the new one]` Makes an instance. May run concurrently.
    ///
    /// # Errors
    /// The instance cannot run; shown to whoever loads the model.
    fn create_instance(&self, context: InstanceContext) -> Result<Self::Instance>;

    /// `[load-thread]` The endpoints of OpenAI's API that the model answers: `chat/completions`, `completions`,
    /// `embeddings`. With one, [`Request::openai`] says of each request in a batch whether it is such a call.
    fn openai_endpoints(&self) -> &[&str] {
        &[]
    }
}

/// A model whose backend keeps nothing of its own: then [`Stateless`] is the backend.
pub trait LoadModel: Model + Sized {
    /// `[load-thread]` Loads a model. May run concurrently.
    ///
    /// # Errors
    /// The model cannot be served; shown to whoever loads it.
    fn load(context: ModelContext) -> Result<Self>;
}

/// The backend of a [`LoadModel`].
pub struct Stateless<M>(PhantomData<fn() -> M>);

impl<M: LoadModel> Backend for Stateless<M> {
    type Model = M;

    fn create(_: BackendContext) -> Result<Self> {
        Ok(Self(PhantomData))
    }

    fn load(&self, context: ModelContext) -> Result<M> {
        M::load(context)
    }
}

/// An instance: one an `instance_group` slot. It lives on one thread and is never called concurrently.
pub trait Instance: 'static {
    /// `[instance-thread]` Runs a batch. Every request is answered through its responder, now or later, from any thread;
    /// one that is dropped without an answer is answered INTERNAL by the server.
    fn execute(&mut self, batch: Vec<Request>);

    /// `[instance-thread]` Returns when the instance holds no request any more.
    fn drain(&mut self) {}
}
