//! The models that answer, in this process.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use trireme_runtime::{Core, LogLevel};
use trireme_telemetry::{LogOptions, MetricOptions, Registry};

use super::DeviceLost;
use crate::checkpoint::{CheckpointRepository, checkpoint_backend};
use crate::cli::{Batch, Command, Serve};
use crate::settings::{backend_directory, core_options};

/// Calls in the core at a time that keep an engine full where its configuration says less.
const AT_LEAST: usize = 256;
/// Batches that wait beside the one that runs.
const BATCHES: usize = 4;

/// A core without front ends.
pub(super) struct Models {
    pub(super) core: Arc<Core>,
    /// A checkpoint's configuration lies in it.
    _checkpoint: Option<CheckpointRepository>,
}

impl Models {
    pub(super) fn load(flags: &Batch) -> anyhow::Result<Self> {
        let log =
            LogOptions { info: flags.log_verbose > 0, verbose: flags.log_verbose, ..LogOptions::default() };
        trireme_telemetry::init_logging(&log).context("the log")?;
        let mut stand_in = None;
        let checkpoint = match &flags.checkpoint {
            Some(path) => {
                let (backend, other) =
                    checkpoint_backend(&backend_directory(flags.backend_directory.as_deref())?);
                stand_in = other;
                Some(CheckpointRepository::of(path, flags.model_name.as_deref(), backend)?)
            }
            None if flags.model_name.is_some() => {
                bail!("--model-name needs a checkpoint: trireme batch CHECKPOINT --model-name NAME")
            }
            None => None,
        };
        let mut serve = serve_flags(flags)?;
        if let Some(checkpoint) = &checkpoint {
            serve.model_repository = vec![checkpoint.path()];
            serve.backend_fallback.extend(stand_in.map(|(from, to)| format!("{from}={to}")));
        }
        let registry: &'static Registry =
            Box::leak(Box::new(Registry::with_options(MetricOptions::default())));
        let level = if flags.log_verbose > 0 { LogLevel::VERBOSE } else { LogLevel::WARN };
        let core = Core::start(core_options(&serve)?, registry, level)
            .map_err(|error| anyhow::anyhow!(error.message))?;
        let models = Self { core, _checkpoint: checkpoint };
        if let Err(error) = models.check() {
            models.end(1);
            return Err(error);
        }
        Ok(models)
    }

    fn check(&self) -> anyhow::Result<()> {
        // No file and no configuration is to blame for what has failed then.
        if let Some(fault) = self.core.device_fault() {
            return Err(DeviceLost(fault).into());
        }
        if !self.core.startup_ok() {
            let entries = self.core.index(false).into_iter().filter(|entry| !entry.reason.is_empty());
            let reasons: Vec<String> =
                entries.map(|entry| format!("model '{}': {}", entry.name, entry.reason)).collect();
            bail!(
                "not all models can be loaded (--load-model names those that are needed)\n{}",
                reasons.join("\n")
            );
        }
        if self.core.openai_models().is_empty() {
            bail!("no model answers calls of OpenAI's API, which the lines of a batch are");
        }
        Ok(())
    }

    /// Calls that are in the core at a time, if nobody says otherwise.
    pub(super) fn concurrency(&self) -> usize {
        let largest = self.core.openai_models().iter().map(|model| model.config().proto.max_batch_size).max();
        let largest = usize::try_from(largest.unwrap_or(0)).unwrap_or(0);
        (largest * BATCHES).max(AT_LEAST)
    }

    pub(super) fn end(&self, seconds: u64) {
        self.core.finish_drain(Duration::from_secs(seconds));
    }
}

/// The flags of a server that would serve the same models.
fn serve_flags(flags: &Batch) -> anyhow::Result<Box<Serve>> {
    let mut arguments: Vec<OsString> = vec!["trireme".into(), "serve".into()];
    let mut give = |name: &str, value: &std::ffi::OsStr| {
        arguments.push(name.into());
        arguments.push(value.to_owned());
    };
    if let Some(path) = &flags.checkpoint {
        // In the place of the repository that is made of it.
        give("--model-repository", Path::as_os_str(path));
    }
    flags.model_repository.iter().for_each(|path| give("--model-repository", path.as_os_str()));
    if !flags.load_model.is_empty() {
        give("--model-control-mode", "explicit".as_ref());
    }
    for (name, values) in [
        ("--load-model", &flags.load_model),
        ("--backend-config", &flags.backend_config),
        ("--backend-fallback", &flags.backend_fallback),
    ] {
        values.iter().for_each(|value| give(name, value.as_ref()));
    }
    if let Some(path) = &flags.backend_directory {
        give("--backend-directory", path.as_os_str());
    }
    match crate::cli::parse(arguments)? {
        Command::Serve(serve) => Ok(serve),
        _ => bail!("no models can be loaded"),
    }
}
