//! From a directory to a model that is ready to be swapped in. Nothing here changes the index: a load that fails leaves
//! no trace but its error. What is loaded, and when, is decided in [`crate::lifecycle`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use trireme_host::abi::InstanceKind;
use trireme_host::{Backend, ModelArgs};
use trireme_model_config::{CheckedConfig, Draft, InstanceGroup};
use trireme_protocol::StatusCode;
use trireme_repository::{FoundModel, FoundVersion};
use trireme_scheduling::StartAfter;
use trireme_telemetry::Registry;

use crate::backends::Backends;
use crate::batch_io::BatchIo;
use crate::cache::ResponseCache;
use crate::ensemble::Ensemble;
use crate::error::ServeError;
use crate::fleet::{Fleet, FleetChange, Terms};
use crate::index::Index;
use crate::instance::{InstancePlan, Prepared};
use crate::labels::Labels;
use crate::model::ModelVersion;
use crate::options::CoreOptions;
use crate::overlay::Overlay;
use crate::queue::Queue;
use crate::sequence::Sequences;
use crate::share::Limiter;
use crate::source;
use crate::table::{TensorSpec, TensorTable};
use crate::threads::Threads;
use crate::warmup::Warmup;

/// What a load needs to know of the server.
pub(crate) struct Loader<'a> {
    pub(crate) options: &'a CoreOptions,
    pub(crate) backends: &'a Backends,
    pub(crate) registry: &'static Registry,
    pub(crate) index: &'a Arc<ArcSwap<Index>>,
    pub(crate) cache: Option<&'a Arc<ResponseCache>>,
    pub(crate) limiter: Option<&'a Arc<Limiter>>,
}

/// A version that is ready; its instances wait for the word.
pub(crate) struct LoadedModel {
    pub(crate) version: ModelVersion,
    /// The backend's library, if it has one.
    pub(crate) library: Option<PathBuf>,
    pub(crate) fleet: Option<VersionFleet>,
    instances: Vec<Prepared>,
}

/// The instances of a version with the backend that makes them.
#[derive(Clone)]
pub(crate) struct VersionFleet {
    fleet: Fleet,
    backend: Arc<Backend>,
}

impl LoadedModel {
    /// Lets the instances take requests.
    pub(crate) fn start(self, threads: &Arc<Threads>) -> Arc<ModelVersion> {
        let version = Arc::new(self.version);
        if let Some(ensemble) = &version.ensemble {
            ensemble.set_threads(threads);
        }
        for instance in self.instances {
            instance.start(Arc::clone(&version), threads.begin(version.generation()));
        }
        version
    }
}

/// Why a model could not be loaded.
pub(crate) struct LoadFailure {
    pub(crate) error: ServeError,
    /// The versions that were to be loaded; none if it did not come to that.
    pub(crate) versions: Vec<i64>,
    /// The one that failed.
    pub(crate) version: Option<i64>,
}

impl From<ServeError> for LoadFailure {
    fn from(error: ServeError) -> Self {
        Self { error, versions: Vec::new(), version: None }
    }
}

impl Loader<'_> {
    /// Loads one version; if that fails, once more as often as it was asked for.
    pub(crate) fn load_version(
        &self,
        found: &FoundModel,
        draft: &Draft,
        version: &FoundVersion,
        numbers: &[i64],
        files: Option<&Arc<Overlay>>,
    ) -> Result<LoadedModel, ServeError> {
        let mut tries = 0;
        loop {
            match self.try_version(found, draft.clone(), version.number, &version.dir, numbers) {
                Ok(mut loaded) => {
                    loaded.version.files = files.cloned();
                    loaded.version.lease = found.lease.clone();
                    return Ok(loaded);
                }
                Err(error) if tries < self.options.load_retries => {
                    tries += 1;
                    tracing::warn!(
                        model = found.name,
                        version = version.number,
                        "retry {tries} of {}: {}",
                        self.options.load_retries,
                        error.message
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_version(
        &self,
        found: &FoundModel,
        draft: Draft,
        number: i64,
        dir: &Path,
        numbers: &[i64],
    ) -> Result<LoadedModel, ServeError> {
        if source::is_ensemble(&draft) {
            return self.ensemble(found, &draft, number, numbers);
        }
        source::check_files(&draft)?;
        if let Some((library, name)) = source::asked_first(self.options, &draft, found, dir) {
            match self.backends.get(&library, &name).and_then(|backend| {
                self.with_backend(found, draft.clone(), (number, dir), numbers, (library, name), backend)
            }) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => {
                    tracing::info!(model = found.name, "its own backend is used: {}", error.message)
                }
            }
        }
        let (library, backend_name) = source::backend(self.options, &draft, found, dir)?;
        let own = backend_name == draft.proto.backend;
        let with = |library: PathBuf, name: String| {
            let backend = self.backends.get(&library, &name).map_err(|error| (true, error))?;
            self.with_backend(found, draft.clone(), (number, dir), numbers, (library, name), backend)
                .map_err(|error| (error.status == StatusCode::Unsupported, error))
        };
        match with(library, backend_name.clone()) {
            Ok(loaded) => Ok(loaded),
            Err((cannot, mut error)) => {
                // It is there, but cannot run on this machine, or not this model.
                let other = match cannot && own {
                    true => source::stand_in(self.options, &draft, found, dir),
                    false => None,
                };
                let Some((library, other)) = other else {
                    error.message += source::hint(self.options, &draft, found, dir);
                    return Err(error);
                };
                tracing::warn!(
                    model = found.name,
                    "backend '{backend_name}' cannot be used: {}",
                    error.message
                );
                with(library, other).map_err(|(_, error)| error)
            }
        }
    }

    /// A version that this backend runs.
    fn with_backend(
        &self,
        found: &FoundModel,
        mut draft: Draft,
        (number, dir): (i64, &Path),
        numbers: &[i64],
        (library, backend_name): (PathBuf, String),
        backend: Arc<Backend>,
    ) -> Result<LoadedModel, ServeError> {
        if self.options.auto_complete {
            let json = source::json(&draft);
            let args = model_args(&found.name, number, &found.dir, dir, &json);
            if let Some(patch) = backend.complete_config(&args)? {
                source::complete(&mut draft, &patch, found)?;
            }
        }
        let config = source::check(self.options, &draft, found)?;
        let config_json = trireme_model_config::config_json(&config.proto);
        let plans = instance_plans(&config, &backend)?;
        let args = model_args(&found.name, number, &found.dir, dir, &config_json);
        let labels = Labels::read(&config, &found.dir)?;
        let warmup = Warmup::read(&config, &found.dir)?;
        let sequences = Sequences::new(&config, &found.dir)?;
        let batch_io = BatchIo::new(&config)?;
        let bounded = std::num::NonZeroU32::new(backend.library().info().max_in_flight);
        let queue = Queue::new(
            source::dispatcher(&config, plans.len(), bounded, self.options.start_after)?,
            bounded.is_some() || self.limiter.is_some(),
        );
        let model = backend.load(&args)?;
        let endpoints = model.openai_endpoints()?;
        let label = format!("{}:{number}", found.name);
        let terms =
            Terms { max_in_flight: bounded, warmup: Arc::new(warmup), limiter: self.limiter.cloned() };
        let reads_gpu =
            backend.library().info().reads_gpu && plans.iter().any(|plan| plan.kind == InstanceKind::GPU);
        let (fleet, instances) = Fleet::create(&model, plans, terms, &label)?;
        let mut version = self.version(number, config, numbers, queue, sequences);
        version.labels = labels;
        version.batch_io = Arc::new(batch_io);
        version.max_in_flight = bounded;
        version.reads_gpu = reads_gpu;
        if backend_name != version.config().backend {
            let wanted = &version.config().backend;
            version.remark =
                format!("backend '{backend_name}' in the place of '{wanted}' (--backend-fallback)");
        }
        // Such calls belong to no sequence.
        version.endpoints = if version.sequences().is_some() { Vec::new() } else { endpoints };
        let fleet = Some(VersionFleet { fleet, backend });
        Ok(LoadedModel { version, library: Some(library), fleet, instances })
    }

    fn version(
        &self,
        number: i64,
        config: CheckedConfig,
        numbers: &[i64],
        queue: Queue,
        sequences: Option<Sequences>,
    ) -> ModelVersion {
        let tags: Vec<(String, String)> =
            config.metric_tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let metrics = self.registry.model(&config.name, number, &tags);
        let json = trireme_model_config::config_json(&config.proto);
        let cache = self.cache.filter(|_| config.response_cache).cloned();
        match &cache {
            Some(_) => metrics.show_cache(),
            None if config.response_cache => tracing::warn!(
                model = config.name,
                "response_cache has no effect: the server has no cache; start it with --cache-config=local,size=BYTES"
            ),
            None => {}
        }
        let mut version =
            ModelVersion::new(number, config, json, numbers.to_vec(), metrics, queue, sequences);
        version.cache = cache;
        version.limiter = self.limiter.cloned();
        version.directory = Arc::downgrade(self.index);
        version
    }

    /// A version of an ensemble, which computes nothing itself. Its steps are ready versions by now; whether their
    /// tensors fit together is to be seen here.
    fn ensemble(
        &self,
        found: &FoundModel,
        draft: &Draft,
        number: i64,
        numbers: &[i64],
    ) -> Result<LoadedModel, ServeError> {
        let mut config = source::check(self.options, draft, found)?;
        let labels = Labels::read(&config, &found.dir)?;
        let ensemble = Ensemble::load(draft, &config, self.index)?;
        source::set_decoupled(&mut config, draft, ensemble.is_decoupled())?;
        let queue = Queue::new(source::dispatcher(&config, 0, None, StartAfter::default())?, false);
        let mut version = self.version(number, config, numbers, queue, None);
        version.labels = labels;
        version.ensemble = Some(Arc::new(ensemble));
        Ok(LoadedModel { version, library: None, fleet: None, instances: Vec::new() })
    }
}

impl VersionFleet {
    /// The same with other instances.
    pub(crate) fn with(self, fleet: Fleet) -> Self {
        Self { fleet, ..self }
    }

    /// Makes the instances that `config` has beyond those there are.
    pub(crate) fn prepare(
        &self,
        config: &CheckedConfig,
        version: &ModelVersion,
    ) -> Result<FleetChange, ServeError> {
        self.fleet.prepare(instance_plans(config, &self.backend)?, version)
    }
}

fn model_args<'a>(
    name: &'a str,
    version: i64,
    model_dir: &'a Path,
    version_dir: &'a Path,
    config_json: &'a str,
) -> ModelArgs<'a> {
    ModelArgs { name, version, model_dir, version_dir, config_json }
}

/// The instances that the groups of a configuration stand for.
fn instance_plans(config: &CheckedConfig, backend: &Backend) -> Result<Vec<InstancePlan>, ServeError> {
    use trireme_model_config::InstanceKind as Asked;
    let info = backend.library().info();
    let mut plans = Vec::new();
    for group in &config.instance_groups {
        if group.passive {
            continue;
        }
        let kind = match group.kind {
            Asked::Gpu if !info.gpu => {
                return Err(ServeError::internal(format!(
                    "GPU instances not supported: instance group '{}' of model '{}' has kind KIND_GPU, but the \
                     backend '{}' has no GPU support; use KIND_CPU or KIND_AUTO",
                    group.name,
                    config.name,
                    backend.library().name()
                )));
            }
            Asked::Gpu => InstanceKind::GPU,
            Asked::Model => InstanceKind::MODEL,
            Asked::Cpu => InstanceKind::CPU,
            Asked::Auto if info.gpu && (!info.cpu || !group.gpus.is_empty()) => InstanceKind::GPU,
            Asked::Auto => InstanceKind::CPU,
        };
        // As many on each GPU.
        let devices =
            if kind == InstanceKind::GPU && !group.gpus.is_empty() { &group.gpus[..] } else { &[0] };
        let places = devices.iter().flat_map(|device| (0..group.count).map(move |_| *device));
        for (number, device) in places.enumerate() {
            let index = u32::try_from(plans.len()).unwrap_or(u32::MAX);
            let name = format!("{}_{number}", group.name);
            let alike = InstanceGroup { name: String::new(), count: 0, ..group.clone() };
            plans.push(InstancePlan { name, group: alike, index, kind, device });
        }
    }
    if plans.is_empty() {
        return Err(ServeError::invalid(format!("model '{}' has no instance that could run", config.name)));
    }
    Ok(plans)
}

/// The tensors of a configuration by index.
pub(crate) fn tensor_table(config: &CheckedConfig) -> TensorTable {
    let spec = |tensor: &trireme_model_config::TensorSpec| TensorSpec {
        name: tensor.name.clone().into_boxed_str(),
        datatype: tensor.data_type,
        dims: tensor.dims.iter().copied().collect(),
        reshape: tensor.reshape.as_ref().map(|shape| shape.iter().copied().collect()),
        optional: tensor.optional,
        ragged: tensor.allow_ragged_batch,
        is_shape: tensor.is_shape_tensor,
    };
    let inputs = config.inputs.iter().map(spec).collect();
    let outputs = config.outputs.iter().map(spec).collect();
    let added = config.sequence().into_iter().flat_map(Sequences::input_names);
    let added = added.chain(BatchIo::input_names(config));
    TensorTable::new(inputs, outputs, added, config.max_batch_size)
}
