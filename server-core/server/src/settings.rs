//! From flags to the options of the core: what the flags mean and which combinations are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use trireme_protocol::Limits;
use trireme_runtime::{ControlMode, CoreOptions};

use crate::cli::{ControlModeFlag, Serve};

/// The options that the flags stand for.
///
/// # Errors
/// A flag or a combination of flags that cannot be served, with what to do.
pub(crate) fn core_options(flags: &Serve) -> anyhow::Result<CoreOptions> {
    let control_mode = match flags.model_control_mode {
        ControlModeFlag::None => ControlMode::None,
        ControlModeFlag::Explicit => ControlMode::Explicit,
        ControlModeFlag::Poll => {
            ControlMode::Poll { interval: Duration::from_secs(flags.repository_poll_secs.into()) }
        }
    };
    if !flags.load_model.is_empty() && control_mode != ControlMode::Explicit {
        bail!("--load-model needs --model-control-mode=explicit: in the other modes all models are loaded");
    }
    if flags.load_model.len() > 1 && flags.load_model.iter().any(|name| name == "*") {
        bail!("--load-model=* already names all models: it must be the only --load-model");
    }
    Ok(CoreOptions {
        server_id: flags.id.clone(),
        repositories: flags.model_repository.clone(),
        backend_directory: backend_directory(flags.backend_directory.as_deref())?,
        backend_cache: flags.backend_cache.clone(),
        allow_model_backends: flags.allow_model_backends,
        backend_config: backend_config(&flags.backend_config)?,
        backend_fallback: fallback(&flags.backend_fallback)?,
        control_mode,
        startup_models: flags.load_model.clone(),
        config_name: flags.model_config_name.clone(),
        auto_complete: !flags.disable_auto_complete_config,
        strict_readiness: flags.strict_readiness,
        load_threads: usize::from(flags.model_load_thread_count),
        load_retries: flags.model_load_retry_count,
        exit_timeout: Duration::from_secs(flags.exit_timeout_secs),
        cache_bytes: crate::cache::size(&flags.cache_config, flags.response_cache_byte_size)?,
        limits: Limits { max_body: flags.http_max_input_size, ..Limits::default() },
    })
}

/// The directory that was given, or `backends` beside the program.
pub(crate) fn backend_directory(given: Option<&std::path::Path>) -> anyhow::Result<PathBuf> {
    let directory = match given {
        Some(directory) => directory.to_owned(),
        None => {
            let program = std::env::current_exe().context("where the program is")?;
            program.parent().unwrap_or(&program).join("backends")
        }
    };
    if !directory.is_dir() {
        bail!(
            "the backend directory '{}' does not exist: give --backend-directory, or run `cargo xtask build` first",
            directory.display()
        );
    }
    Ok(directory)
}

fn backend_config(given: &[String]) -> anyhow::Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut config: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for text in given {
        let (backend, setting) = text.split_once(',').unwrap_or(("", text));
        let Some((key, value)) = setting.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            bail!("--backend-config '{text}': expected BACKEND,KEY=VALUE or KEY=VALUE");
        };
        config.entry(backend.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    Ok(config)
}

fn fallback(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (from, to) = text
            .split_once('=')
            .filter(|(from, to)| !from.is_empty() && !to.is_empty())
            .with_context(|| format!("--backend-fallback '{text}': expected FROM=TO"))?;
        Ok((from.to_owned(), to.to_owned()))
    };
    given.iter().map(pair).collect()
}
