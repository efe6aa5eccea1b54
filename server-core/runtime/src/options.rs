use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trireme_host::PoolSizes;
use trireme_protocol::Limits;
use trireme_repository::Remote;
use trireme_scheduling::{StartAfter, Supplies};

/// Who decides which models are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMode {
    /// All models of the repositories, once, at start.
    None,
    /// All models of the repositories, looked at again from time to time.
    Poll {
        /// How long from the end of one look to the next.
        interval: Duration,
    },
    /// The start list, then the load and unload calls.
    Explicit,
}

/// How a server is set up; the command line fills it.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// The name in the server's metadata.
    pub server_id: String,
    /// Where models are.
    pub repositories: Vec<PathBuf>,
    /// Those of the repositories that are copies of others.
    pub remotes: Vec<Arc<dyn Remote>>,
    /// Where `<name>/libtrireme_<name>.so` is.
    pub backend_directory: PathBuf,
    /// Where copies of changed backend libraries are kept; a temporary directory if absent.
    pub backend_cache: Option<PathBuf>,
    /// Whether a library inside a model's directory may be loaded.
    pub allow_model_backends: bool,
    /// Settings by backend; the empty name holds those for all backends.
    pub backend_config: BTreeMap<String, BTreeMap<String, String>>,
    /// One backend in the place of another.
    pub backend_fallback: BTreeMap<String, String>,
    /// Who decides what is loaded.
    pub control_mode: ControlMode,
    /// With [`ControlMode::Explicit`]: what is loaded at start; `*` for all.
    pub startup_models: Vec<String>,
    /// `configs/<name>.pbtxt` is read in the place of `config.pbtxt` where it exists.
    pub config_name: Option<String>,
    /// Whether a backend may complete a configuration.
    pub auto_complete: bool,
    /// Ready only if all requested models are.
    pub strict_readiness: bool,
    /// Whether a server whose repositories cannot be read is none at all.
    pub exit_on_error: bool,
    /// How many models are loaded at once.
    pub load_threads: usize,
    /// Whether clients may register shared memory.
    pub allow_client_shm: bool,
    /// How often a version that cannot be loaded is tried again at once.
    pub load_retries: u32,
    /// How long a drain may take.
    pub exit_timeout: Duration,
    /// The size of the response cache in bytes; none if absent.
    pub cache_bytes: Option<usize>,
    /// Whether instances wait for the resources that their configurations name, and how much there is of each.
    pub rate_limit: Option<Supplies>,
    /// How much memory is taken for tensors on devices.
    pub device_pools: PoolSizes,
    /// For tests: how many requests a batcher waits for before it begins.
    pub start_after: StartAfter,
    /// What clients may send.
    pub limits: Limits,
}

/// A server without models, which nobody has asked for anything else.
impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            server_id: "triton".to_owned(),
            repositories: Vec::new(),
            remotes: Vec::new(),
            backend_directory: PathBuf::new(),
            backend_cache: None,
            allow_model_backends: false,
            backend_config: BTreeMap::new(),
            backend_fallback: BTreeMap::new(),
            control_mode: ControlMode::None,
            startup_models: Vec::new(),
            config_name: None,
            auto_complete: true,
            strict_readiness: true,
            exit_on_error: true,
            load_threads: 1,
            allow_client_shm: false,
            load_retries: 0,
            exit_timeout: Duration::from_secs(30),
            cache_bytes: None,
            rate_limit: None,
            device_pools: PoolSizes::default(),
            start_after: StartAfter::default(),
            limits: Limits::default(),
        }
    }
}
