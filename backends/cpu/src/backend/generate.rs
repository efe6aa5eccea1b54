//! Decoders as models: the executor that the engine of `trireme_llm::serve` drives.

use std::sync::{Mutex, PoisonError};

use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::executor::Executor;
use trireme_llm::params::Parameters;
use trireme_llm::serve::{Decoder, MakeExecutor, Sizes};
use trireme_sdk::{ModelContext, Result};

use super::sizes::{self, Costs, Taken};
use super::{memory, unusable};
use crate::decoder::LlamaModel;
use crate::executor::{CpuExecutor, ExecutorOptions, KvCapacity};
use crate::kv::untouched;
use crate::options::Options;

/// Held from the look at the memory that is free until it is taken: models load in parallel.
static PROMISING: Mutex<()> = Mutex::new(());

pub(super) fn load(
    context: &ModelContext,
    checkpoint: &Checkpoint,
    options: Options,
    params: &Parameters,
) -> Result<Decoder> {
    let model = LlamaModel::load(checkpoint, options).map_err(unusable)?;
    let (name, host) = (context.name.clone(), context.host.clone());
    let make: MakeExecutor = Box::new(move |sizes| {
        // Until the pool is there, nobody sees what was promised to it.
        let one_at_a_time = PROMISING.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, options) = plan(&model, options, sizes)?;
        let executor = CpuExecutor::new(model.clone(), options).map_err(unusable)?;
        drop(one_at_a_time);
        match taken.gave_way {
            true => host.warn(format!("model '{name}': {taken}")),
            false => host.info(format!("model '{name}': {taken}")),
        }
        Ok(Box::new(executor) as Box<dyn Executor>)
    });
    Decoder::load(context, checkpoint, params, make)
}

/// Sizes that fit into the memory that is free beside the weights, which are there already.
fn plan(model: &LlamaModel, options: Options, sizes: &Sizes) -> Result<(Taken, ExecutorOptions)> {
    let (block_tokens, block_bytes) = model.kv_block().map_err(unusable)?;
    let costs = Costs {
        block_tokens: block_tokens as u64,
        block_bytes: block_bytes as u64,
        row_bytes: model.row_bytes() as u64,
        vocab_size: model.config().vocab_size as u64,
        trained: model.config().max_position_embeddings as u64,
    };
    // What other models may still take of what they were given is not free.
    let taken = sizes::plan(&costs, sizes, memory::available().saturating_sub(untouched()))?;
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let options = ExecutorOptions {
        model: options,
        max_slots: size(taken.slots),
        max_step_tokens: size(taken.step_tokens),
        max_context: sizes.max_context,
        kv: KvCapacity::Tokens(size(taken.positions())),
    };
    Ok((taken, options))
}
