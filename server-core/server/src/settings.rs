//! From flags to the options of the core: what the flags mean and which combinations are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trireme_grpc::Tls;
use trireme_protocol::{Limits, Restrictions};
use trireme_runtime::{ControlMode, CoreOptions, PoolSizes, Supplies};
use trireme_telemetry::MetricOptions;

use crate::cli::{ControlModeFlag, Serve, grammar};
use crate::repositories;

/// More loads at once than this only compete for the disk.
const MAX_LOADS: usize = 256;

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
    if flags.model_repository.is_empty() && flags.checkpoint.is_none() {
        bail!("--model-repository is empty: name a directory of models");
    }
    if !flags.load_model.is_empty() && control_mode != ControlMode::Explicit {
        bail!("--load-model needs --model-control-mode=explicit: in the other modes all models are loaded");
    }
    if flags.load_model.len() > 1 && flags.load_model.iter().any(|name| name == "*") {
        bail!("--load-model=* already names all models: it must be the only --load-model");
    }
    let (repositories, remotes) = repositories::open(&flags.model_repository)?;
    Ok(CoreOptions {
        server_id: flags.id.clone(),
        repositories,
        remotes,
        backend_directory: backend_directory(flags.backend_directory.as_deref())?,
        backend_cache: flags.backend_cache.clone(),
        allow_model_backends: flags.allow_model_backends,
        backend_config: gpu_metrics(backend_config(&flags.backend_config, flags.use_cuda_graph)?, flags),
        backend_fallback: fallback(&flags.backend_fallback)?,
        control_mode,
        startup_models: flags.load_model.clone(),
        config_name: flags.model_config_name.clone(),
        auto_complete: !flags.disable_auto_complete_config,
        strict_readiness: flags.strict_readiness,
        exit_on_error: flags.exit_on_error,
        load_threads: flags.model_load_thread_count.min(MAX_LOADS),
        allow_client_shm: flags.allow_client_shm,
        load_retries: flags.model_load_retry_count,
        exit_timeout: Duration::from_secs(flags.exit_timeout_secs),
        cache_bytes: crate::cache::size(&flags.cache_config, flags.response_cache_byte_size)?,
        rate_limit: rate_limit(flags)?,
        device_pools: device_pools(flags)?,
        start_after: crate::test_hooks::start_after()?,
        limits: Limits { max_body: flags.http_max_input_size, ..Limits::default() },
    })
}

/// How much memory the server takes for tensors on devices.
fn device_pools(flags: &Serve) -> anyhow::Result<PoolSizes> {
    let mut sizes = PoolSizes { pinned: flags.pinned_memory_pool_byte_size, ..PoolSizes::default() };
    for text in &flags.cuda_memory_pool_byte_size {
        let (device, size) =
            device_pool(text).with_context(|| format!("--cuda-memory-pool-byte-size '{text}'"))?;
        sizes.gpu.insert(device, size);
    }
    Ok(sizes)
}

/// DEVICE:BYTES.
fn device_pool(text: &str) -> anyhow::Result<(i32, usize)> {
    let given =
        text.split_once(':').and_then(|(device, size)| Some((device.parse().ok()?, size.parse().ok()?)));
    let (device, size) = given.context("expected DEVICE:BYTES, both whole numbers")?;
    ensure!(device >= 0, "GPUs are numbered from 0, there is no GPU {device}");
    Ok((device, size))
}

/// The resources of the rate limiter, if it is on.
fn rate_limit(flags: &Serve) -> anyhow::Result<Option<Supplies>> {
    if !flags.rate_limit {
        if !flags.rate_limit_resource.is_empty() {
            tracing::warn!(
                "--rate-limit-resource has no effect: it only has a meaning with --rate-limit=execution_count"
            );
        }
        return Ok(None);
    }
    let mut supplies = Supplies::default();
    for text in &flags.rate_limit_resource {
        let (name, count, device) = grammar::resource(text)
            .with_context(|| format!("--rate-limit-resource '{text}': expected NAME:COUNT[:DEVICE]"))?;
        supplies.add(name, device, count);
    }
    Ok(Some(supplies))
}

/// The restrictions of a door.
///
/// # Errors
/// A value that names no group, or one twice.
pub(crate) fn restrictions(
    flag: &str,
    given: &[String],
    prefix: &str,
    what: &str,
) -> anyhow::Result<Restrictions> {
    let mut restrictions = Restrictions::default();
    for text in given {
        // Without the value: it is a secret.
        restrictions.add(text, prefix, what).map_err(|error| anyhow::anyhow!("{flag}: {error}"))?;
    }
    Ok(restrictions)
}

/// The certificates of the gRPC port, if it is encrypted.
///
/// # Errors
/// A file that is not named, or does not hold what it should.
pub(crate) fn tls(flags: &Serve) -> anyhow::Result<Option<Tls>> {
    if !flags.grpc_use_ssl {
        return Ok(None);
    }
    let certificate = flags.grpc_server_cert.as_deref().context("--grpc-use-ssl needs --grpc-server-cert")?;
    let key = flags.grpc_server_key.as_deref().context("--grpc-use-ssl needs --grpc-server-key")?;
    let roots = match (flags.grpc_use_ssl_mutual, flags.grpc_root_cert.as_deref()) {
        (true, None) => bail!("--grpc-use-ssl-mutual needs --grpc-root-cert: what clients are checked with"),
        (true, roots) => roots,
        (false, _) => None,
    };
    Tls::read(certificate, key, roots).map(Some).context("TLS of gRPC")
}

/// Which metrics are kept.
///
/// # Errors
/// A value that its key cannot have.
pub(crate) fn metric_options(flags: &Serve) -> anyhow::Result<MetricOptions> {
    let mut options = MetricOptions { cpu: flags.allow_cpu_metrics, ..MetricOptions::default() };
    for text in &flags.metrics_config {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let known = options.set(key, value).map_err(|error| anyhow::anyhow!("--metrics-config: {error}"))?;
        if !known {
            tracing::warn!("--metrics-config={key} has no effect: there is no such setting");
        }
    }
    Ok(options)
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

type BackendConfig = BTreeMap<String, BTreeMap<String, String>>;

/// The metrics of GPUs come from the backend that uses them.
fn gpu_metrics(mut config: BackendConfig, flags: &Serve) -> BackendConfig {
    let on = flags.allow_metrics && flags.allow_gpu_metrics;
    config.entry(GPU_BACKEND.to_owned()).or_default().insert("gpu_metrics".to_owned(), on.to_string());
    config
}

/// The backend for NVIDIA GPUs.
const GPU_BACKEND: &str = "tensorrtllm";

fn backend_config(given: &[String], use_cuda_graph: Option<bool>) -> anyhow::Result<BackendConfig> {
    let mut config = BackendConfig::new();
    for text in given {
        let (backend, setting) = text.split_once(',').unwrap_or(("", text));
        let Some((key, value)) = setting.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            bail!("--backend-config '{text}': expected BACKEND,KEY=VALUE or KEY=VALUE");
        };
        config.entry(backend.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    if let Some(on) = use_cuda_graph {
        let settings = config.entry(GPU_BACKEND.to_owned()).or_default();
        let other = settings.insert("use_cuda_graph".to_owned(), on.to_string());
        if let Some(other) = other.filter(|other| other != &on.to_string()) {
            bail!(
                "--use-cuda-graph={on} and --backend-config {GPU_BACKEND},use_cuda_graph={other}: they are names of one \
                 setting, leave one out"
            );
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pools_are_of_gpus_that_can_be() {
        assert_eq!(device_pool("1:4096").unwrap(), (1, 4096));
        let refused = |text| device_pool(text).unwrap_err().to_string();
        assert_eq!(refused("-1:4096"), "GPUs are numbered from 0, there is no GPU -1");
        for text in ["", "1", "1:", ":1", "1:-1", "a:1", "1:1:1", "99999999999:1"] {
            assert_eq!(refused(text), "expected DEVICE:BYTES, both whole numbers", "{text}");
        }
    }
}
