use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use trireme_host::abi::LogLevel;
use trireme_protocol::Limits;
use trireme_protocol::proto::ModelStatistics;
use trireme_protocol::repository::LoadRequest;
use trireme_repository::FoundModel;
use trireme_telemetry::Registry;

use crate::backends::Backends;
use crate::error::ServeError;
use crate::index::{Index, ModelEntry, UNLOADED, VersionEntry};
use crate::load::{LoadedModel, Loader};
use crate::options::{ControlMode, CoreOptions};
use crate::served::Served;
use crate::services::Services;
use crate::shared_memory::SharedMemory;
use crate::state::{IndexEntry, ModelState};
use crate::statistics::lock;
use crate::threads::Threads;

/// The extensions of the protocol that the server speaks, in the order in which Triton lists them.
const EXTENSIONS: &[&str] = &[
    "classification",
    "sequence",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
];

/// The server without its front ends: models, their life cycle and their requests.
pub struct Core {
    options: CoreOptions,
    registry: &'static Registry,
    backends: Backends,
    index: ArcSwap<Index>,
    /// One change of the index at a time; held for the swap only, never while a backend is called.
    change: Mutex<()>,
    /// Models that are being loaded or unloaded; a second call for one of them waits.
    busy: Busy,
    threads: Arc<Threads>,
    draining: AtomicBool,
    shared_memory: Arc<SharedMemory>,
    services: &'static Services,
}

impl Core {
    /// Makes a server and loads its start-up models. Models that fail are in the index with their reasons.
    ///
    /// # Errors
    /// A repository that cannot be read, or a start-up model that does not exist.
    pub fn start(
        options: CoreOptions,
        registry: &'static Registry,
        log_level: LogLevel,
    ) -> Result<Arc<Self>, ServeError> {
        let services = Services::leak(registry, log_level);
        let backends = Backends::new(&options, services);
        let core = Arc::new(Self {
            backends,
            registry,
            index: ArcSwap::default(),
            change: Mutex::new(()),
            busy: Busy::default(),
            threads: Arc::default(),
            draining: AtomicBool::new(false),
            shared_memory: Arc::new(SharedMemory::new(options.allow_client_shm)),
            services,
            options,
        });
        core.load_at_start()?;
        Ok(core)
    }

    fn load_at_start(self: &Arc<Self>) -> Result<(), ServeError> {
        let found = self.loader().scan()?;
        let names: Vec<String> = found.iter().map(|model| model.name.clone()).collect();
        self.change(|index| {
            for model in &found {
                let entry = index.models.entry(model.name.clone()).or_default();
                entry.reason.clone_from(&model.problem);
            }
        });
        let wanted: Vec<String> = match self.options.control_mode {
            ControlMode::None => names,
            ControlMode::Explicit if self.options.startup_models.iter().any(|name| name == "*") => names,
            ControlMode::Explicit => {
                for name in &self.options.startup_models {
                    if !names.contains(name) {
                        return Err(ServeError::not_found(format!(
                            "--load-model {name}: no such model in the repositories{}",
                            crate::text::did_you_mean(name, names.iter().map(String::as_str))
                        )));
                    }
                }
                self.options.startup_models.clone()
            }
        };
        self.change(|index| {
            for name in &wanted {
                index.models.entry(name.clone()).or_default().requested = true;
            }
        });
        let queue = Mutex::new(found.into_iter().filter(|model| wanted.contains(&model.name)));
        std::thread::scope(|scope| {
            for _ in 0..self.options.load_threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = lock(&queue).next();
                        let Some(model) = next else { break };
                        let _busy = self.busy.enter(&model.name);
                        if let Err(error) = self.load_found(&model, LoadRequest::default()) {
                            tracing::error!(model = model.name, "{}", error.message);
                        }
                    }
                });
            }
        });
        Ok(())
    }

    fn loader(&self) -> Loader<'_> {
        Loader { options: &self.options, backends: &self.backends, registry: self.registry }
    }

    /// Loads one model, beside its old versions if it has any, and swaps. A failure leaves the old ones serving.
    fn load_now(&self, name: &str, parameters: LoadRequest) -> Result<(), ServeError> {
        let _busy = self.busy.enter(name);
        self.load_found(&self.loader().find(name)?, parameters)
    }

    /// As [`Core::load_now`], for one who has entered.
    fn load_found(&self, found: &FoundModel, parameters: LoadRequest) -> Result<(), ServeError> {
        let name = found.name.as_str();
        if self.is_draining() {
            return Err(ServeError::unavailable("the server is shutting down"));
        }
        let serving = self.index.load().models.get(name).is_some_and(|entry| entry.latest.is_some());
        if !serving {
            // UNAVAILABLE => LOADING
            self.change(|index| {
                let entry = index.models.entry(name.to_owned()).or_default();
                entry.requested = true;
                for version in entry.versions.values_mut() {
                    version.state = ModelState::Loading;
                    version.reason.clear();
                }
            });
        }
        let started = trireme_telemetry::clock::now_ns();
        match self.loader().load(found, parameters) {
            Ok(loaded) => {
                self.install(name, loaded, started);
                Ok(())
            }
            Err(failure) => {
                // LOADING => UNAVAILABLE; a model that serves stays READY
                if !serving {
                    self.change(|index| {
                        mark_failed(index.models.entry(name.to_owned()).or_default(), &failure)
                    });
                }
                let version =
                    failure.version.map(|version| format!("version {version} is at UNAVAILABLE state: "));
                let message = format!(
                    "load failed for model '{name}': {}{};",
                    version.unwrap_or_default(),
                    failure.error.message
                );
                Err(ServeError::new(failure.error.status, message))
            }
        }
    }

    /// LOADING => READY: swaps the new versions in and lets the old ones finish.
    fn install(&self, name: &str, loaded: Vec<LoadedModel>, started: u64) {
        let seconds = trireme_telemetry::clock::now_ns().saturating_sub(started) as f64 / 1e9;
        let mut fresh = BTreeMap::new();
        for model in loaded {
            let version = Arc::clone(&model.version);
            version.metrics.set_load_duration_secs(seconds);
            model.start(&self.threads);
            tracing::info!(model = name, version = version.version(), "ready after {seconds:.2} s");
            let entry = VersionEntry {
                state: ModelState::Ready,
                reason: String::new(),
                model: Some(Served::new(version)),
            };
            fresh.insert(entry.model.as_ref().map_or(0, |model| model.version()), entry);
        }
        let mut drained = Vec::new();
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            entry.reason = None;
            entry.requested = true;
            let previous = std::mem::replace(&mut entry.versions, fresh.clone());
            // The old versions end when nobody who has looked them up holds them.
            for number in previous.into_keys() {
                entry.versions.entry(number).or_insert(VersionEntry {
                    state: ModelState::Unavailable,
                    reason: UNLOADED.to_owned(),
                    model: None,
                });
            }
            entry.settle();
            // A drain that has begun meanwhile has passed this model by: it ends here.
            if self.is_draining() {
                drained.extend(entry.versions.values_mut().filter_map(|version| version.model.take()));
                entry.latest = None;
            }
        });
        for model in drained {
            model.queue().close();
        }
    }

    /// Loads or reloads a model and returns when it is ready or has failed.
    ///
    /// # Errors
    /// UNAVAILABLE unless the control mode is explicit; otherwise why the load failed. The old versions keep serving.
    pub async fn load(self: &Arc<Self>, name: &str, parameters: LoadRequest) -> Result<(), ServeError> {
        self.check_control()?;
        let (core, name) = (Arc::clone(self), name.to_owned());
        self.on_a_thread("load", move || core.load_now(&name, parameters)).await
    }

    /// Unloads a model: takes no new requests, lets the running ones finish.
    ///
    /// # Errors
    /// UNAVAILABLE unless the control mode is explicit, NOT_FOUND for a model that nobody knows.
    pub async fn unload(self: &Arc<Self>, name: &str, unload_dependents: bool) -> Result<(), ServeError> {
        self.check_control()?;
        // Only ensembles have dependents, and there are none yet: nothing else is to be unloaded.
        let _ = unload_dependents;
        let (core, name) = (Arc::clone(self), name.to_owned());
        self.on_a_thread("unload", move || core.unload_now(&name)).await
    }

    fn check_control(&self) -> Result<(), ServeError> {
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

    /// READY => UNLOADING => UNAVAILABLE
    fn unload_now(self: &Arc<Self>, name: &str) -> Result<(), ServeError> {
        let _busy = self.busy.enter(name);
        let mut leaving = Vec::new();
        let mut known = false;
        self.change(|index| {
            let Some(entry) = index.models.get_mut(name) else { return };
            known = true;
            entry.requested = false;
            for version in entry.versions.values_mut() {
                if let Some(model) = version.model.take() {
                    version.state = ModelState::Unloading;
                    leaving.push(model);
                }
            }
            entry.settle();
        });
        if !known {
            let known = self.loader().scan()?.iter().any(|model| model.name == name);
            if known {
                return Ok(());
            }
            return Err(ServeError::not_found(format!(
                "failed to unload '{name}': no such model in the repositories"
            )));
        }
        let core = Arc::clone(self);
        let name = name.to_owned();
        let generations: Vec<u64> = leaving.iter().map(|model| model.generation()).collect();
        for model in leaving {
            model.queue().close();
        }
        // The call returns when the unload has begun; this thread tells the index when it is done.
        let watch = move || {
            core.threads.wait_for(&generations);
            core.change(|index| {
                let Some(entry) = index.models.get_mut(&name) else { return };
                for version in entry.versions.values_mut().filter(|v| v.state == ModelState::Unloading) {
                    version.state = ModelState::Unavailable;
                    version.reason = UNLOADED.to_owned();
                }
            });
        };
        let spawned = std::thread::Builder::new().name("unload".to_owned()).spawn(watch);
        spawned
            .map(drop)
            .map_err(|error| ServeError::internal(format!("no thread to unload a model: {error}")))
    }

    fn change(&self, edit: impl FnOnce(&mut Index)) {
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

    /// The extensions of the protocol that are spoken.
    pub fn extensions(&self) -> &'static [&'static str] {
        EXTENSIONS
    }

    /// Whether the process works at all; false while it drains.
    pub fn is_live(&self) -> bool {
        !self.is_draining()
    }

    /// Whether requests are welcome: with strict readiness only if every requested model is ready.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && (!self.options.strict_readiness || self.index.load().all_ready())
    }

    /// Whether the server is on its way out.
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
            return Err(ServeError::unavailable("the server is shutting down and takes no new requests"));
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
            Ok(model) => Ok(!self.is_draining() && !model.is_lost()),
            Err(error) if index.models.contains_key(name) && version.is_none() => {
                tracing::debug!("{error}");
                Ok(false)
            }
            Err(error) if error.status == trireme_protocol::StatusCode::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lines of the repository index.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        self.index.load().list(ready_only)
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
            return Err(ServeError::not_found(format!("requested model '{name}' is not available")));
        };
        let models = of(entry);
        if models.is_empty() {
            return Err(ServeError::not_found(format!(
                "requested model version is not available for model '{name}'"
            )));
        }
        Ok(models.iter().map(|model| crate::report::statistics(model)).collect())
    }

    /// The metrics in Prometheus' text form.
    pub fn metrics_text(&self) -> String {
        self.registry.render()
    }

    /// Whether a ready model takes text under `text_input` (for the line that is printed to try).
    pub fn takes_text(&self, name: &str) -> bool {
        self.index.load().find(name, None).is_ok_and(|model| model.table.input("text_input").is_some())
    }

    /// Whether every model that was to be loaded at start is ready.
    pub fn startup_ok(&self) -> bool {
        self.index.load().all_ready()
    }

    /// Refuses new requests from now on.
    pub fn begin_drain(&self) {
        self.draining.store(true, SeqCst);
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
        for model in models {
            model.queue().close();
        }
        self.threads.wait_all(timeout)
    }
}

fn mark_failed(entry: &mut ModelEntry, failure: &crate::load::LoadFailure) {
    let reason = failure.error.message.clone();
    if failure.versions.is_empty() {
        entry.versions.clear();
        entry.reason = Some(reason);
        return;
    }
    entry.reason = None;
    entry.versions.clear();
    for version in &failure.versions {
        let own = failure.version.is_none_or(|failed| failed == *version);
        let reason = if own { reason.clone() } else { "another version failed to load".to_owned() };
        let state = ModelState::Unavailable;
        entry.versions.insert(*version, VersionEntry { state, reason, model: None });
    }
    entry.settle();
}

/// Which models are being changed.
#[derive(Default)]
struct Busy {
    names: Mutex<std::collections::BTreeSet<String>>,
    left: std::sync::Condvar,
}

struct BusyGuard<'a> {
    busy: &'a Busy,
    name: String,
}

impl Busy {
    /// Waits until nobody else changes the model.
    fn enter(&self, name: &str) -> BusyGuard<'_> {
        let mut names = lock(&self.names);
        while !names.insert(name.to_owned()) {
            names = self.left.wait(names).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        BusyGuard { busy: self, name: name.to_owned() }
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        lock(&self.busy.names).remove(&self.name);
        self.busy.left.notify_all();
    }
}
