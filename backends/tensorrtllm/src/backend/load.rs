//! From a configuration to engines on GPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trireme_llm::checkpoint::{Architecture, Checkpoint, DecoderConfig};
use trireme_llm::executor::Executor;
use trireme_llm::params::Parameters;
use trireme_llm::serve::{Decoder, MakeExecutor, Sizes};
use trireme_sdk::{Error, ModelContext, Result};

use super::PARAMETERS;
use super::graphs::{self, Graphs};
use super::{Settings, tuning};
use crate::error::CudaError;
use crate::executor::{CudaExecutor, Options};
use crate::model::Source;

/// The parameters and the checkpoint that they name.
pub(super) fn open(context: &ModelContext) -> Result<(Parameters, Checkpoint)> {
    let tables = [trireme_llm::params::PARAMETERS, PARAMETERS];
    let params =
        Parameters::read(&tables, context.config.parameters()).map_err(|e| Error::invalid(e.to_string()))?;
    let path = params.checkpoint(&context.version_dir);
    let checkpoint = Checkpoint::open_as(&path, params.text("load_format"))
        .map_err(|error| Error::invalid(error.to_string()))?;
    Ok((params, checkpoint))
}

/// The decoder of a checkpoint.
///
/// # Errors
/// UNSUPPORTED for an encoder: another backend may run it.
pub(super) fn decoder(checkpoint: &Checkpoint) -> Result<&DecoderConfig> {
    match &checkpoint.architecture {
        Architecture::Decoder(config) => Ok(config),
        Architecture::Bert(_) => Err(Error::unsupported(
            "the checkpoint is an encoder, which the backend 'tensorrtllm' has no kernels for: use the backend 'cpu'",
        )),
    }
}

/// An engine on each of the GPUs.
pub(super) fn model(
    context: &ModelContext,
    gpus: &BTreeSet<i32>,
    settings: &Settings,
) -> Result<BTreeMap<i32, Decoder>> {
    let (params, checkpoint) = open(context)?;
    for (name, why) in params.idle() {
        context.host.warn(format!("model '{}': parameter '{name}' has no effect: {why}", context.name));
    }
    decoder(&checkpoint)?;
    let graphs = graphs::of_model(context.config.json(), &params, settings.graphs)?;
    let checkpoint = Arc::new(checkpoint);
    let mut engines = BTreeMap::new();
    for &gpu in gpus {
        let make = maker(context, &checkpoint, &params, &graphs, settings, gpu);
        engines.insert(gpu, Decoder::load(context, &checkpoint, &params, make)?);
    }
    Ok(engines)
}

fn maker(
    context: &ModelContext,
    checkpoint: &Arc<Checkpoint>,
    params: &Parameters,
    graphs: &Graphs,
    settings: &Settings,
    gpu: i32,
) -> MakeExecutor {
    let (checkpoint, params, graphs) = (Arc::clone(checkpoint), params.clone(), graphs.clone());
    let (host, name, caches) = (context.host.clone(), context.name.clone(), settings.caches.clone());
    Box::new(move |sizes| {
        let config = decoder(&checkpoint)?;
        let kernel_cache = caches.kernels.clone();
        let options = Options { kernel_cache, ..options(sizes, &params, &graphs, gpu)? };
        let source = source(&checkpoint, &params);
        let executor = tuning::store(&checkpoint, caches.tuning.as_ref(), options.device)
            .and_then(|tuning| CudaExecutor::load(config, &source, &Options { tuning, ..options }))
            .inspect_err(|error| {
                if let CudaError::Lost { .. } = error {
                    host.device_lost(format!("model '{name}', GPU {gpu}: {error}"));
                }
            })
            .map_err(error)?;
        host.info(format!(
            "model '{name}' on GPU {gpu}, {}: {}",
            executor.device_name(),
            executor.memory_plan()
        ));
        for note in &executor.tuning().notes {
            host.warn(format!("model '{name}' on GPU {gpu}: {note}"));
        }
        host.info(format!("model '{name}' on GPU {gpu}: {}", tuning::said(executor.tuning())));
        Ok(Box::new(executor) as Box<dyn Executor>)
    })
}

/// Dummy weights are made where they are needed.
pub(super) fn source<'a>(checkpoint: &'a Checkpoint, params: &Parameters) -> Source<'a> {
    match (params.text("load_format"), checkpoint.weights().next()) {
        (Some("dummy"), Some(weight)) => Source::Dummy(weight.ty),
        _ => Source::Checkpoint(checkpoint),
    }
}

/// What the executor is told.
pub(super) fn options(sizes: &Sizes, params: &Parameters, graphs: &Graphs, gpu: i32) -> Result<Options> {
    let plain = Options::default();
    let device = usize::try_from(gpu).map_err(|_| Error::invalid(format!("GPU {gpu}: they count from 0")))?;
    let profiles = sizes.profiles.profiles();
    let mut decode_sizes: Vec<usize> = sizes.profiles.buckets().iter().map(|b| b.batch as usize).collect();
    decode_sizes.sort_unstable();
    decode_sizes.dedup();
    let rows = profiles.map(|p| p.tokens.max as usize).max();
    let largest = decode_sizes.last().copied();
    let max_slots = sizes.max_batch_size.or(largest).unwrap_or(plain.max_slots);
    Ok(Options {
        device,
        max_slots,
        max_step_tokens: sizes.max_num_tokens.or(rows).unwrap_or(plain.max_step_tokens).max(max_slots),
        max_context: sizes.max_context,
        kv_fraction: sizes.kv_fraction.map_or(plain.kv_fraction, |f| f as f32),
        max_kv_tokens: sizes.kv_tokens,
        graphs: graphs.on,
        max_graphs: params.count("cuda_graph_cache_size"),
        first_graphs: graphs.first.clone(),
        decode_sizes,
        deterministic: params.flag("deterministic").unwrap_or(false),
        skinny_rows: if params.flag("fusion").unwrap_or(true) { plain.skinny_rows } else { 0 },
        ..plain
    })
}

/// Whose fault it is.
pub(super) fn error(error: CudaError) -> Error {
    let text = error.to_string();
    match error {
        CudaError::Unsupported(_) => Error::unsupported(text),
        CudaError::Checkpoint(_) | CudaError::NoDevice { .. } | CudaError::TooOld { .. } => {
            Error::invalid(text)
        }
        CudaError::NoDriver
        | CudaError::NoGpu
        | CudaError::OldDriver { .. }
        | CudaError::NoLibrary { .. }
        | CudaError::Memory(_)
        | CudaError::Lost { .. } => Error::unavailable(text),
        CudaError::Driver { .. } | CudaError::Compile { .. } => Error::internal(text),
    }
}
