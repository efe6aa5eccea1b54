use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use trireme_host::DeviceCopies;
use trireme_host::abi::LogLevel;
use trireme_protocol::Limits;
use trireme_protocol::proto::ModelStatistics;
use trireme_protocol::repository::LoadRequest;
use trireme_telemetry::Registry;

use crate::backends::Backends;
use crate::cache::ResponseCache;
use crate::error::ServeError;
use crate::index::{Index, ModelEntry};
use crate::lifecycle::Lifecycle;
use crate::load::Loader;
use crate::options::{ControlMode, CoreOptions};
use crate::served::Served;
use crate::services::Services;
use crate::share::Limiter;
use crate::shared_memory::SharedMemory;
use crate::state::IndexEntry;
use crate::statistics::lock;
use crate::stopping::Stopping;
use crate::threads::Threads;

/// The extensions of the protocol that the server speaks, in the order in which Triton lists them.
const EXTENSIONS: &[&str] = &[
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    CUDA_SHARED_MEMORY,
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
];

/// Spoken where a backend provides the memory of a GPU.
const CUDA_SHARED_MEMORY: &str = "cuda_shared_memory";

/// The server without its front ends: models, their life cycle and their requests.
pub struct Core {
    pub(crate) options: CoreOptions,
    registry: &'static Registry,
    backends: Backends,
    pub(crate) index: Arc<ArcSwap<Index>>,
    /// One change of the index at a time; held for the swap only, never while a backend is called.
    change: Mutex<()>,
    pub(crate) life: Lifecycle,
    pub(crate) threads: Arc<Threads>,
    /// Not ready any more, though requests are still taken.
    leaving: AtomicBool,
    draining: AtomicBool,
    /// What was there when the end began.
    stopping: Mutex<Stopping>,
    /// Its repositories could not be read: it answers, but is neither live nor ready.
    failed: AtomicBool,
    shared_memory: Arc<SharedMemory>,
    services: &'static Services,
    cache: Option<Arc<ResponseCache>>,
    limiter: Option<Arc<Limiter>>,
}

impl Core {
    /// Makes a server and loads its start-up models. Models that fail are in the index with their reasons.
    ///
    /// # Errors
    /// A repository that cannot be read, with `exit_on_error`.
    pub fn start(
        options: CoreOptions,
        registry: &'static Registry,
        log_level: LogLevel,
    ) -> Result<Arc<Self>, ServeError> {
        let services = Services::leak(registry, log_level);
        trireme_host::set_pool_sizes(options.device_pools.clone());
        let backends = Backends::new(&options, services);
        let core = Arc::new(Self {
            backends,
            registry,
            index: Arc::default(),
            change: Mutex::new(()),
            life: Lifecycle::new(options.load_threads),
            threads: Arc::default(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            stopping: Mutex::default(),
            failed: AtomicBool::new(false),
            shared_memory: Arc::new(SharedMemory::new(options.allow_client_shm)),
            services,
            cache: options.cache_bytes.map(ResponseCache::new),
            limiter: options.rate_limit.clone().map(Limiter::new),
            options,
        });
        services.serve(&core);
        // Without repositories nobody could say which models there should be, but somebody may want to ask why.
        if let Err(error) = core.load_at_start() {
            if core.options.exit_on_error {
                return Err(error);
            }
            tracing::error!("{}; the server is neither live nor ready", error.message);
            core.failed.store(true, SeqCst);
        }
        Ok(core)
    }

    pub(crate) fn loader(&self) -> Loader<'_> {
        Loader {
            options: &self.options,
            backends: &self.backends,
            registry: self.registry,
            index: &self.index,
            cache: self.cache.as_ref(),
            limiter: self.limiter.as_ref(),
        }
    }

    /// Loads or reloads a model and returns when it is ready or has failed.
    ///
    /// # Errors
    /// UNAVAILABLE unless the control mode is explicit; otherwise why the load failed. The old versions keep serving.
    pub async fn load(self: &Arc<Self>, name: &str, parameters: LoadRequest) -> Result<(), ServeError> {
        self.check_control()?;
        let (core, name) = (Arc::clone(self), name.to_owned());
        self.on_a_thread("load", move || core.load_now(&name, parameters, None)).await
    }

    /// Unloads a model: takes no new requests, lets the running ones finish. Returns when that has begun. With
    /// `unload_dependents` the models go, too, that were loaded only on behalf of this ensemble.
    ///
    /// # Errors
    /// UNAVAILABLE unless the control mode is explicit. A model that nobody knows is unloaded as it is.
    pub async fn unload(self: &Arc<Self>, name: &str, unload_dependents: bool) -> Result<(), ServeError> {
        self.check_control()?;
        let (core, name) = (Arc::clone(self), name.to_owned());
        self.on_a_thread("unload", move || core.unload_now(&name, unload_dependents, None)).await
    }

    pub(crate) fn check_control(&self) -> Result<(), ServeError> {
        if self.options.control_mode == ControlMode::Explicit {
            return Ok(());
        }
        Err(ServeError::unavailable("explicit model load / unload is not allowed if polling is enabled"))
    }

    async fn on_a_thread(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<(), ServeError> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (done, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = done.send(work());
        });
        thread.map_err(|error| ServeError::internal(format!("no thread to {name} a model: {error}")))?;
        result
            .await
            .unwrap_or_else(|_| Err(ServeError::internal(format!("the {name} ended without a result"))))
    }

    pub(crate) fn change(&self, edit: impl FnOnce(&mut Index)) {
        let _one_at_a_time = lock(&self.change);
        let mut index = Index::clone(&self.index.load());
        edit(&mut index);
        self.index.store(Arc::new(index));
    }

    /// The server's name.
    pub fn server_name(&self) -> &str {
        &self.options.server_id
    }

    /// The server's version.
    pub fn server_version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// The extensions of the protocol that are spoken. A backend that is loaded later may add one.
    pub fn extensions(&self) -> Vec<String> {
        let spoken = |name: &&&str| **name != CUDA_SHARED_MEMORY || trireme_host::has_devices();
        EXTENSIONS.iter().filter(spoken).map(|name| (*name).to_owned()).collect()
    }

    /// Whether the process works at all. A server on its way out lives: who restarts what does not would cut off its
    /// clients.
    pub fn is_live(&self) -> bool {
        !self.failed.load(SeqCst)
    }

    /// Whether requests are welcome: with strict readiness only if every requested model is ready.
    pub fn is_ready(&self) -> bool {
        self.is_live()
            && !self.is_leaving()
            && (!self.options.strict_readiness || self.index.load().all_ready())
    }

    /// Whether the server is on its way out: no longer ready, though it may still take requests.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst) || self.is_draining() || self.services.fault().is_set()
    }

    /// What the backend said that lost a device for good, if one has: the server is not ready any more, and only a new
    /// process can use that device.
    pub fn device_fault(&self) -> Option<Arc<str>> {
        self.services.fault().get()
    }

    /// Returns when a device is lost, with what was said of it.
    pub async fn device_lost(&self) -> Arc<str> {
        self.services.fault().wait().await
    }

    /// Whether new requests are refused because the server ends.
    pub fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// What clients may send.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The regions that clients have registered.
    pub fn shared_memory(&self) -> &Arc<SharedMemory> {
        &self.shared_memory
    }

    /// How much backends are to log from now on.
    pub fn set_log_level(&self, level: LogLevel) {
        self.services.set_log_level(level);
    }

    /// The version that a request for `name` runs on.
    ///
    /// # Errors
    /// NOT_FOUND or UNAVAILABLE with the texts that Triton uses.
    pub fn model(&self, name: &str, version: Option<i64>) -> Result<Arc<Served>, ServeError> {
        if self.is_draining() {
            return lock(&self.stopping).find(name, version);
        }
        self.index.load().find(name, version).cloned()
    }

    /// Whether a model (version) is ready.
    ///
    /// # Errors
    /// NOT_FOUND for a name or version that nobody knows.
    pub fn model_ready(&self, name: &str, version: Option<i64>) -> Result<bool, ServeError> {
        let index = self.index.load();
        match index.find(name, version) {
            Ok(model) => Ok(!self.is_leaving() && !model.is_lost()),
            Err(error) if index.models.contains_key(name) && version.is_none() => {
                tracing::debug!("{error}");
                Ok(false)
            }
            Err(error) if error.status == trireme_protocol::StatusCode::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lines of the repository index. Models that have come into a repository since are there by their names.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let index = self.index.load();
        let mut lines = index.list(ready_only);
        if !ready_only && self.options.control_mode == ControlMode::Explicit {
            let names = trireme_repository::names(&self.options.repositories).unwrap_or_default();
            let fresh = names.into_iter().filter(|name| !index.models.contains_key(name));
            lines.extend(fresh.map(|name| IndexEntry {
                name,
                version: None,
                state: None,
                reason: String::new(),
            }));
            lines.sort_by(|one, two| one.name.cmp(&two.name));
        }
        lines
    }

    /// The statistics of one version, of all versions of a model, or of all models.
    ///
    /// # Errors
    /// NOT_FOUND for a name or version that is not served.
    pub fn statistics(
        &self,
        name: Option<&str>,
        version: Option<i64>,
    ) -> Result<Vec<ModelStatistics>, ServeError> {
        let index = self.index.load();
        let of = |entry: &ModelEntry| -> Vec<Arc<Served>> {
            let versions = entry.versions.values().filter_map(|one| one.model.clone());
            versions.filter(|model| version.is_none_or(|wanted| wanted == model.version())).collect()
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(index
                .models
                .values()
                .flat_map(of)
                .map(|model| crate::report::statistics(&model))
                .collect());
        };
        let Some(entry) = index.models.get(name).filter(|entry| entry.latest.is_some()) else {
            return Err(ServeError::invalid(format!("requested model '{name}' is not available")));
        };
        let models = of(entry);
        if models.is_empty() {
            return Err(ServeError::invalid(format!(
                "requested model version is not available for model '{name}'"
            )));
        }
        Ok(models.iter().map(|model| crate::report::statistics(model)).collect())
    }

    /// The metrics in Prometheus' text form.
    pub fn metrics_text(&self) -> String {
        let name = "trireme_copied_bytes_total";
        let help = "Bytes of tensors copied between requests, models and answers";
        let copied = trireme_host::copied_bytes();
        let mut text = self.registry.render();
        text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {copied}\n");
        let DeviceCopies { to_host, to_device, between } = trireme_host::device_copies();
        let name = "trireme_device_copied_bytes_total";
        text +=
            &format!("# HELP {name} Bytes of tensors copied to and from devices\n# TYPE {name} counter\n");
        for (way, bytes) in [("to_host", to_host), ("to_device", to_device), ("between", between)] {
            text += &format!("{name}{{way=\"{way}\"}} {bytes}\n");
        }
        text
    }

    /// What a model shows under the name of a gauge, by its labels beside `model` and `version`; none if it does not.
    pub fn model_gauge(&self, model: &Served, name: &str, label: (&str, &str)) -> Option<f64> {
        let version = model.version().to_string();
        self.registry.value(name, &[("model", model.name()), ("version", &version), label])
    }

    /// The models that answer calls of OpenAI's API, in the order of their names.
    pub fn openai_models(&self) -> Vec<Arc<Served>> {
        let index = self.index.load();
        let latest = index.models.values().filter_map(|entry| entry.latest.clone());
        latest.filter(|model| !model.openai_endpoints().is_empty() && !model.is_lost()).collect()
    }

    /// Whether a ready model takes text under `text_input` (for the line that is printed to try).
    pub fn takes_text(&self, name: &str) -> bool {
        self.index.load().find(name, None).is_ok_and(|model| model.table.input("text_input").is_some())
    }

    /// Whether every model that was to be loaded at start is ready.
    pub fn startup_ok(&self) -> bool {
        self.index.load().all_loaded()
    }

    /// Is not ready from now on, so that balancers look elsewhere; requests are still taken.
    pub fn begin_leave(&self) {
        self.leaving.store(true, SeqCst);
    }

    /// Refuses new requests from now on.
    pub fn begin_drain(&self) {
        if !self.is_draining() {
            *lock(&self.stopping) = Stopping::of(&self.index.load());
        }
        self.draining.store(true, SeqCst);
        self.life.stop.stop();
    }

    /// Closes all queues and waits until every instance is gone, or the time is over; true if all are gone.
    pub fn finish_drain(&self, timeout: std::time::Duration) -> bool {
        self.begin_drain();
        let mut models = Vec::new();
        self.change(|index| {
            for entry in index.models.values_mut() {
                models.extend(entry.versions.values_mut().filter_map(|version| version.model.take()));
                entry.latest = None;
            }
        });
        // Each ends when nobody holds it any more: a running ensemble still needs the models of its steps.
        drop(models);
        self.life.records.clear();
        self.threads.wait_all(timeout)
    }
}
