//! Where a model comes from: its directory, its configuration, its backend's library, its scheduler.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use trireme_model_config::{
    Capabilities, CheckedConfig, Draft, DynamicBatching, Finding, Scheduling, Severity, VersionPolicy,
    config_json,
};
use trireme_protocol::proto::ModelTransactionPolicy;
use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_repository::{BackendPlaces, FoundModel, FoundVersion, RepositoryError, Which};
use trireme_scheduling::{
    Direct, Dispatcher, Dynamic, DynamicConfig, InstanceSlots, Policies, PolicyError, QueuePolicy,
    StartAfter, TimeoutAction,
};

use crate::error::ServeError;
use crate::options::{ControlMode, CoreOptions};

/// What models can use here beyond the bare minimum; `trireme check` asks for the same.
pub const CAPABILITIES: Capabilities = Capabilities {
    sequence_batching: true,
    ensemble_scheduling: true,
    preserve_ordering: true,
    priority_levels: true,
    queue_policies: true,
    response_cache: true,
    model_warmup: true,
    batch_input_output: true,
    shape_tensors: true,
    labels: true,
    rate_limiter: false,
    host_policies: false,
    secondary_devices: false,
    repository_agents: false,
    model_operations: false,
    model_metrics: true,
    runtime: true,
};

/// All models of the repositories, for the first time: what is no repository is told apart.
pub(crate) fn scan(options: &CoreOptions) -> Result<Vec<FoundModel>, ServeError> {
    let all = options.control_mode != ControlMode::Explicit
        || options.startup_models.iter().any(|name| name == "*");
    refresh(options, if all { Which::All } else { Which::Only(&options.startup_models) })?;
    let found = trireme_repository::scan(&options.repositories, options.config_name.as_deref());
    match found {
        // Models may come later.
        Err(RepositoryError::NoModels { .. }) if options.control_mode != ControlMode::None => look(options),
        Err(error) => Err(ServeError::invalid(as_given(options, error).to_string())),
        Ok(found) => Ok(pinned(options, found)),
    }
}

/// All models of the repositories, which may be none.
pub(crate) fn rescan(options: &CoreOptions) -> Result<Vec<FoundModel>, ServeError> {
    refresh(options, Which::All)?;
    look(options)
}

/// One model of the repositories.
pub(crate) fn find(options: &CoreOptions, name: &str) -> Result<Option<FoundModel>, ServeError> {
    refresh(options, Which::Only(&[name.to_owned()]))?;
    let found = trireme_repository::find(&options.repositories, name, options.config_name.as_deref())
        .map_err(|error| ServeError::invalid(error.to_string()))?;
    Ok(pinned(options, found.into_iter().collect()).pop())
}

fn look(options: &CoreOptions) -> Result<Vec<FoundModel>, ServeError> {
    let found = trireme_repository::rescan(&options.repositories, options.config_name.as_deref());
    Ok(pinned(options, found.map_err(|error| ServeError::invalid(error.to_string()))?))
}

/// Brings the copies of repositories that are elsewhere in step.
fn refresh(options: &CoreOptions, which: Which<'_>) -> Result<(), ServeError> {
    let mut remotes = options.remotes.iter();
    remotes
        .try_for_each(|remote| remote.refresh(which))
        .map_err(|error| ServeError::invalid(error.to_string()))
}

/// The error with the address of a repository in the place of its copy.
fn as_given(options: &CoreOptions, error: RepositoryError) -> RepositoryError {
    let address = |path: &Path| {
        options
            .remotes
            .iter()
            .find(|remote| remote.directory() == path)
            .map(|remote| remote.address().to_owned())
    };
    match &error {
        RepositoryError::NoModels { path } => {
            address(path).map_or(error, |path| RepositoryError::NoModels { path })
        }
        RepositoryError::IsModel { path, .. } => match address(path) {
            Some(path) => {
                let parent = path.parent().unwrap_or(&path).to_owned();
                RepositoryError::IsModel { path, parent }
            }
            None => error,
        },
        _ => error,
    }
}

/// Ties what was found in a copy to it.
fn pinned(options: &CoreOptions, found: Vec<FoundModel>) -> Vec<FoundModel> {
    let pin = |found| options.remotes.iter().fold(found, |found, remote| remote.pinned(found));
    found.into_iter().map(pin).collect()
}

/// Whether a model is put together from others.
pub(crate) fn is_ensemble(draft: &Draft) -> bool {
    matches!(draft.proto.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)))
}

/// The steps of an ensemble: model and version, -1 for the newest. None of any other model.
pub(crate) fn steps(draft: &Draft) -> Vec<(String, i64)> {
    match &draft.proto.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(ensemble)) => {
            ensemble.step.iter().map(|step| (step.model_name.clone(), step.model_version)).collect()
        }
        _ => Vec::new(),
    }
}

/// The configuration of a model as it was written, on disk or in the load call, with defaults.
pub(crate) fn draft(model: &FoundModel, given: Option<&str>) -> Result<Draft, ServeError> {
    let mut draft = match (given, &model.config) {
        (Some(json), _) => Draft::from_json(json).map_err(|finding| all(&[finding]))?,
        (None, Some(path)) => Draft::read(path).map_err(|finding| all(&[finding]))?,
        (None, None) => Draft::default(),
    };
    draft.normalise(&model.name, &model.files());
    Ok(draft)
}

/// As [`draft`], for a load: warnings are logged, and it must say which backend is needed.
pub(crate) fn read(model: &FoundModel, given: Option<&str>) -> Result<Draft, ServeError> {
    for warning in &model.warnings {
        tracing::warn!(model = model.name, "{warning}");
    }
    let draft = draft(model, given)?;
    if model.config.is_none() && given.is_none() && draft.proto.backend.is_empty() {
        return Err(ServeError::invalid(format!(
            "model '{}' has no config.pbtxt, and no file in its version directory tells which backend it needs",
            model.name
        )));
    }
    Ok(draft)
}

/// Why a model cannot even be read.
pub(crate) fn problem(options: &CoreOptions, model: &FoundModel, given: bool) -> Option<String> {
    let missing = || {
        let path = model.dir.join("config.pbtxt");
        format!(
            "failed to open text file for read {}: No such file or directory; without --disable-auto-complete-config a \
             model may do without",
            path.display()
        )
    };
    let wanted = !options.auto_complete && !given && model.config.is_none();
    model.problem.clone().or_else(|| wanted.then(missing))
}

/// The versions that the policy wants, of those that are there.
pub(crate) fn versions(draft: &Draft, model: &FoundModel) -> Result<Vec<FoundVersion>, ServeError> {
    let selection = model
        .select(&VersionPolicy::of(&draft.proto))
        .map_err(|error| ServeError::invalid(error.to_string()))?;
    for version in selection.missing {
        tracing::error!(model = model.name, "version {version} of the version policy has no directory");
    }
    Ok(selection.versions)
}

/// The library and the name of the backend that runs a model. `--backend-fallback` may name another one.
pub(crate) fn backend(
    options: &CoreOptions,
    draft: &Draft,
    model: &FoundModel,
    version_dir: &Path,
) -> Result<(PathBuf, String), ServeError> {
    let wanted = draft.proto.backend.as_str();
    let places = BackendPlaces {
        backend_directory: &options.backend_directory,
        model_dir: &model.dir,
        version_dir,
        allow_model_backends: options.allow_model_backends,
    };
    let own = match draft.proto.runtime.as_str() {
        "" => trireme_repository::find_backend(wanted, &places),
        runtime => trireme_repository::find_runtime(wanted, runtime, &places),
    };
    let missing = match own {
        Ok(path) => return Ok((path, wanted.to_owned())),
        Err(missing) => missing,
    };
    if let Some(other) = stand_in(options, draft, model, version_dir) {
        return Ok(other);
    }
    let hint = hint(options, draft, model, version_dir);
    let finding = draft.finding(Severity::Error, "backend", format!("{missing}{hint}"));
    Err(ServeError::invalid(finding.to_string()))
}

/// Who wrote a configuration may not know that its model can be served by another backend, which is there.
pub(crate) fn hint(
    options: &CoreOptions,
    draft: &Draft,
    model: &FoundModel,
    version_dir: &Path,
) -> &'static str {
    let places = BackendPlaces {
        backend_directory: &options.backend_directory,
        model_dir: &model.dir,
        version_dir,
        allow_model_backends: options.allow_model_backends,
    };
    let is_there = |other| trireme_repository::find_backend(other, &places).is_ok();
    match draft.proto.backend.as_str() {
        GPU_BACKEND if is_there(CPU_BACKEND) => CPU_HINT,
        PYTHON_BACKEND if is_there(TOKENIZER_BACKEND) && !has_script(draft, version_dir) => PYTHON_HINT,
        _ => "",
    }
}

/// Whether there is what the backend `python` runs.
fn has_script(draft: &Draft, version_dir: &Path) -> bool {
    let name = draft.proto.default_model_filename.as_str();
    version_dir.join(if name.is_empty() { "model.py" } else { name }).is_file()
}

/// The backend that is asked before the configuration's own, which is there too. A model written in Python may be one
/// that another backend knows and serves without Python; any other goes to its own.
pub(crate) fn asked_first(
    options: &CoreOptions,
    draft: &Draft,
    model: &FoundModel,
    version_dir: &Path,
) -> Option<(PathBuf, String)> {
    let places = BackendPlaces {
        backend_directory: &options.backend_directory,
        model_dir: &model.dir,
        version_dir,
        allow_model_backends: options.allow_model_backends,
    };
    let is_python = draft.proto.backend == PYTHON_BACKEND && draft.proto.runtime.is_empty();
    trireme_repository::find_backend(&draft.proto.backend, &places).ok().filter(|_| is_python)?;
    stand_in(options, draft, model, version_dir)
}

const GPU_BACKEND: &str = "tensorrtllm";
const CPU_BACKEND: &str = "cpu";
const PYTHON_BACKEND: &str = "python";
const TOKENIZER_BACKEND: &str = "tokenizer";
const PYTHON_HINT: &str = "; --backend-fallback python=tokenizer serves preprocessing, postprocessing and tensorrt_llm_bls of \
    TensorRT-LLM's repository without Python";
const CPU_HINT: &str = "; --backend-fallback tensorrtllm=cpu runs such models on the CPU";

/// The backend that `--backend-fallback` names in the place of the configuration's, if it is there.
pub(crate) fn stand_in(
    options: &CoreOptions,
    draft: &Draft,
    model: &FoundModel,
    version_dir: &Path,
) -> Option<(PathBuf, String)> {
    let wanted = draft.proto.backend.as_str();
    let places = BackendPlaces {
        backend_directory: &options.backend_directory,
        model_dir: &model.dir,
        version_dir,
        allow_model_backends: options.allow_model_backends,
    };
    let other = options.backend_fallback.get(wanted)?;
    let path = trireme_repository::find_backend(other, &places).ok()?;
    tracing::warn!(
        model = model.name,
        "backend '{other}' runs in the place of '{wanted}' (--backend-fallback)"
    );
    Some((path, other.clone()))
}

/// Refuses a configuration that names a file outside its directories: before a backend is asked, since some run what they find.
pub(crate) fn check_files(draft: &Draft) -> Result<(), ServeError> {
    draft.check_files().map_err(|findings| all(&findings))
}

/// The configuration as JSON, for a backend that is to complete it.
pub(crate) fn json(draft: &Draft) -> String {
    config_json(&draft.proto)
}

/// Adds what a backend proposes.
pub(crate) fn complete(draft: &mut Draft, patch: &str, model: &FoundModel) -> Result<(), ServeError> {
    trireme_model_config::complete(&mut draft.proto, patch).map_err(ServeError::internal)?;
    draft.normalise(&model.name, &[]);
    Ok(())
}

/// Holds the configuration against every rule; warnings are logged.
pub(crate) fn check(
    options: &CoreOptions,
    draft: &Draft,
    model: &FoundModel,
) -> Result<CheckedConfig, ServeError> {
    let capabilities = Capabilities { rate_limiter: options.rate_limit.is_some(), ..CAPABILITIES };
    let (config, warnings) =
        draft.check_for(&model.name, &capabilities).map_err(|findings| all(&findings))?;
    for warning in warnings {
        tracing::warn!(model = model.name, "{warning}");
    }
    Ok(config)
}

/// A decoupled step makes its ensemble decoupled, whatever the configuration says.
pub(crate) fn set_decoupled(
    config: &mut CheckedConfig,
    draft: &Draft,
    decoupled: bool,
) -> Result<(), ServeError> {
    if decoupled && config.response_cache {
        let message = "response_cache cannot be used with a decoupled model: a step of this ensemble is one";
        let finding = draft.finding(Severity::Error, "response_cache", message);
        return Err(ServeError::invalid(finding.to_string()));
    }
    config.decoupled = decoupled;
    config.proto.model_transaction_policy = Some(ModelTransactionPolicy { decoupled });
    Ok(())
}

/// The errors among the findings, one below the other.
fn all(findings: &[Finding]) -> ServeError {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let texts: Vec<String> = errors.map(ToString::to_string).collect();
    ServeError::invalid(texts.join("\n"))
}

/// The scheduler of a model with so many instances.
pub(crate) fn dispatcher(
    config: &CheckedConfig,
    instances: usize,
    max_in_flight: Option<NonZeroU32>,
    start_after: StartAfter,
) -> Result<Dispatcher, ServeError> {
    let slots = InstanceSlots::new(u32::try_from(instances).unwrap_or(u32::MAX), max_in_flight);
    if let Some(sequence) = config.sequence() {
        return crate::sequence::dispatcher(sequence, config.max_batch_size, slots, start_after);
    }
    Ok(match &config.scheduling {
        Scheduling::Direct => Dispatcher::new(Direct::new(), slots),
        Scheduling::Dynamic(batching) => {
            let refuse = |error: String| ServeError::invalid(format!("model '{}': {error}", config.name));
            let dynamic =
                DynamicConfig::new(config.max_batch_size, &batching.preferred, batching.max_queue_delay_us)
                    .map_err(|error| refuse(error.to_string()))?;
            let policies = policies(batching).map_err(|error| refuse(error.to_string()))?;
            Dispatcher::new(
                Dynamic::new(dynamic.with_policies(policies).with_start_after(start_after)),
                slots,
            )
        }
    })
}

/// The levels of the queue and what limits each.
fn policies(batching: &DynamicBatching) -> Result<Policies, PolicyError> {
    let policy = |policy: &trireme_model_config::QueuePolicy| QueuePolicy {
        timeout_action: if policy.delay_expired { TimeoutAction::Delay } else { TimeoutAction::Reject },
        default_timeout_microseconds: policy.default_timeout_us,
        allow_timeout_override: policy.allow_timeout_override,
        max_queue_size: policy.max_queue_size,
    };
    let levels = batching.priority_queue_policy.iter().map(|(level, own)| (*level, policy(own)));
    Policies::new(
        batching.priority_levels,
        batching.default_priority_level,
        policy(&batching.default_queue_policy),
        levels,
    )
}
