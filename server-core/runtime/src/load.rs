//! From a directory to a model that is ready to be swapped in. Nothing here changes the index: a load that fails leaves
//! no trace but its error.

use std::path::Path;
use std::sync::Arc;

use trireme_host::abi::InstanceKind;
use trireme_host::{Backend, Model, ModelArgs};
use trireme_model_config::{CheckedConfig, Draft};
use trireme_protocol::repository::LoadRequest;
use trireme_telemetry::Registry;

use crate::backends::Backends;
use crate::error::ServeError;
use crate::instance::{InstancePlan, Prepared};
use crate::model::ModelVersion;
use crate::options::CoreOptions;
use crate::queue::Queue;
use crate::sequence::Sequences;
use crate::source;
use crate::table::{TensorSpec, TensorTable};
use crate::text::did_you_mean;
use crate::threads::Threads;
use trireme_repository::FoundModel;

/// What a load needs to know of the server.
pub(crate) struct Loader<'a> {
    pub(crate) options: &'a CoreOptions,
    pub(crate) backends: &'a Backends,
    pub(crate) registry: &'static Registry,
}

/// A version that is ready; its instances wait for the word.
pub(crate) struct LoadedModel {
    pub(crate) version: Arc<ModelVersion>,
    instances: Vec<Prepared>,
}

impl LoadedModel {
    /// Lets the instances take requests.
    pub(crate) fn start(self, threads: &Arc<Threads>) {
        for instance in self.instances {
            let guard = threads.begin(self.version.generation());
            instance.start(Arc::clone(&self.version), guard);
        }
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
    /// What is in the repositories.
    pub(crate) fn scan(&self) -> Result<Vec<FoundModel>, ServeError> {
        source::scan(self.options)
    }

    /// One model of the repositories.
    pub(crate) fn find(&self, name: &str) -> Result<FoundModel, ServeError> {
        let mut models = self.scan()?;
        match models.iter().position(|model| model.name == name) {
            Some(at) => Ok(models.swap_remove(at)),
            None => {
                let near = did_you_mean(name, models.iter().map(|model| model.name.as_str()));
                let message = format!("failed to load '{name}', failed to poll from model repository{near}");
                Err(ServeError::internal(message))
            }
        }
    }

    /// Loads all versions of a model that its policy wants. One that fails fails all.
    pub(crate) fn load(
        &self,
        found: &FoundModel,
        request: LoadRequest,
    ) -> Result<Vec<LoadedModel>, LoadFailure> {
        if !request.files.is_empty() {
            let message =
                "loading a model from files in the request is not implemented; put them into a repository";
            return Err(ServeError::unsupported(message).into());
        }
        if let Some(problem) = &found.problem {
            return Err(ServeError::invalid(problem.clone()).into());
        }
        let draft = source::read(found, request.config.as_deref())?;
        let versions = source::versions(&draft, found)?;
        let numbers: Vec<i64> = versions.iter().map(|version| version.number).collect();
        let failed =
            |version: i64, error| LoadFailure { error, versions: numbers.clone(), version: Some(version) };
        let mut loaded = Vec::new();
        for version in &versions {
            let one = self.load_version(found, draft.clone(), version.number, &version.dir, &numbers);
            loaded.push(one.map_err(|error| failed(version.number, error))?);
        }
        Ok(loaded)
    }

    fn load_version(
        &self,
        found: &FoundModel,
        mut draft: Draft,
        number: i64,
        dir: &Path,
        numbers: &[i64],
    ) -> Result<LoadedModel, ServeError> {
        let (library, backend_name) = source::backend(self.options, &draft, found, dir)?;
        let backend = self.backends.get(&library, &backend_name)?;
        if self.options.auto_complete {
            let json = source::json(&draft);
            let args = model_args(&found.name, number, &found.dir, dir, &json);
            if let Some(patch) = backend.complete_config(&args)? {
                source::complete(&mut draft, &patch, found)?;
            }
        }
        let config = source::check(&draft, found)?;
        let config_json = trireme_model_config::config_json(&config.proto);
        let plans = instance_plans(&config, &backend, found)?;
        let args = model_args(&found.name, number, &found.dir, dir, &config_json);
        let model = backend.load(&args)?;
        let instances = create_instances(&model, &plans, &format!("{}:{number}", found.name))?;
        let bounded = std::num::NonZeroU32::new(backend.library().info().max_in_flight);
        let queue = Queue::new(source::dispatcher(&config, plans.len(), bounded)?, bounded.is_some());
        let tags: Vec<(String, String)> =
            config.metric_tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let metrics = self.registry.model(&found.name, number, &tags);
        let sequences = Sequences::new(&config, &found.dir)?;
        let version =
            ModelVersion::new(number, config, config_json, numbers.to_vec(), metrics, queue, sequences);
        Ok(LoadedModel { version: Arc::new(version), instances })
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

/// Makes all instances at once; they are made on the threads that will run them.
fn create_instances(
    model: &Arc<Model>,
    plans: &[InstancePlan],
    label: &str,
) -> Result<Vec<Prepared>, ServeError> {
    let pending: Vec<_> =
        plans.iter().map(|plan| Prepared::create(Arc::clone(model), plan.clone(), label)).collect();
    // All of them, also after a failure: the next try must not meet one that is still being made.
    let made: Vec<_> =
        pending.into_iter().map(|one| one.and_then(crate::instance::PendingInstance::wait)).collect();
    made.into_iter().collect()
}

/// The instances that the groups of a configuration stand for.
fn instance_plans(
    config: &CheckedConfig,
    backend: &Backend,
    found: &FoundModel,
) -> Result<Vec<InstancePlan>, ServeError> {
    use trireme_model_config::InstanceKind as Asked;
    let info = backend.library().info();
    let mut plans = Vec::new();
    for group in &config.instance_groups {
        if group.passive {
            continue;
        }
        let kind = match group.kind {
            Asked::Gpu if !info.gpu => {
                return Err(ServeError::invalid(format!(
                    "instance group '{}' of model '{}' has kind KIND_GPU, but the backend '{}' has no GPU support: \
                     use KIND_CPU or KIND_AUTO",
                    group.name,
                    found.name,
                    backend.library().name()
                )));
            }
            Asked::Gpu => InstanceKind::GPU,
            Asked::Model => InstanceKind::MODEL,
            Asked::Cpu => InstanceKind::CPU,
            // No backend of this build reports a device, so there is never a GPU to prefer.
            Asked::Auto => InstanceKind::CPU,
        };
        for number in 0..group.count {
            let index = u32::try_from(plans.len()).unwrap_or(u32::MAX);
            plans.push(InstancePlan { name: format!("{}_{number}", group.name), index, kind, device: 0 });
        }
    }
    if plans.is_empty() {
        return Err(ServeError::invalid(format!("model '{}' has no instance that could run", found.name)));
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
    };
    let inputs = config.inputs.iter().map(spec).collect();
    let outputs = config.outputs.iter().map(spec).collect();
    let added = config.sequence().into_iter().flat_map(Sequences::input_names);
    TensorTable::new(inputs, outputs, added, config.max_batch_size)
}
