//! Decoders as models: the executor that the engine of `trireme_llm::serve` drives.

use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::executor::Executor;
use trireme_llm::params::Parameters;
use trireme_llm::profile::{DoesNotFit, MemoryNeeds};
use trireme_llm::serve::{Decoder, MakeExecutor, Sizes};
use trireme_sdk::{Error, ModelContext, Result};

use super::{memory, unusable};
use crate::decoder::{LlamaModel, MAX_STEP_ROWS};
use crate::executor::{CpuExecutor, ExecutorOptions, KvCapacity};
use crate::options::Options;

/// Sequences at a time where the configuration does not say.
const DEFAULT_SLOTS: usize = 64;
/// Positions of all sequences together where the configuration does not say, if that is more than one context.
const DEFAULT_KV_TOKENS: usize = 16_384;
/// Share of the free memory that keys and values take at most where the configuration does not say.
const DEFAULT_KV_FRACTION: f64 = 0.25;

pub(super) fn load(
    context: &ModelContext,
    checkpoint: &Checkpoint,
    options: Options,
    params: &Parameters,
) -> Result<Decoder> {
    let model = LlamaModel::load(checkpoint, options).map_err(unusable)?;
    let make: MakeExecutor = Box::new(move |sizes| {
        let options = plan(&model, options, sizes, memory::available())?;
        let executor = CpuExecutor::new(model.clone(), options).map_err(unusable)?;
        Ok(Box::new(executor) as Box<dyn Executor>)
    });
    Decoder::load(context, checkpoint, params, make)
}

/// Sizes that fit into `free` bytes beside the weights, which are there already.
fn plan(model: &LlamaModel, options: Options, sizes: &Sizes, free: u64) -> Result<ExecutorOptions> {
    let (block_tokens, block_bytes) = model.kv_block().map_err(unusable)?;
    let slots = sizes.max_batch_size.unwrap_or(DEFAULT_SLOTS);
    let tokens = sizes.max_num_tokens.unwrap_or(MAX_STEP_ROWS);
    let trained = model.config().max_position_embeddings;
    let context = sizes.max_context.unwrap_or(trained);

    let share = |fraction: f64| (free as f64 * fraction) as u64;
    let most = share(sizes.kv_fraction.unwrap_or(DEFAULT_KV_FRACTION));
    let wanted = match (sizes.kv_tokens, sizes.kv_fraction) {
        (Some(tokens), _) => tokens as u64,
        (None, Some(_)) => u64::MAX,
        (None, None) => DEFAULT_KV_TOKENS.max(context).max(slots * block_tokens) as u64,
    };
    // A context that nobody asked for gives way to what there is.
    let room = (most / block_bytes as u64).saturating_mul(block_tokens as u64).min(wanted);
    let least =
        sizes.max_context.unwrap_or_else(|| context.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1));
    let needs = MemoryNeeds {
        available: if sizes.kv_tokens.is_some() { free } else { most },
        weights: 0,
        per_token: model.row_bytes() as u64,
        per_sequence: 3 * 4 * model.config().vocab_size as u64,
        block_bytes: block_bytes as u64,
        block_tokens: block_tokens as u64,
    };
    let fit = |slots: usize| needs.plan(tokens as u64, slots as u64, least as u64);
    let (slots, plan) = match fit(slots) {
        Err(DoesNotFit::Batch { largest, .. }) if sizes.max_batch_size.is_none() && largest > 0 => {
            let slots = usize::try_from(largest).unwrap_or(1);
            (slots, fit(slots).map_err(unusable)?)
        }
        plan => (slots, plan.map_err(unusable)?),
    };
    let blocks = plan.num_blocks.min(wanted.div_ceil(block_tokens as u64)).max(1);
    if sizes.max_context.is_some_and(|context| (blocks * block_tokens as u64) < context as u64) {
        return Err(Error::invalid(format!(
            "parameter 'max_tokens_in_paged_kv_cache' is {wanted}, less than one context of {context} tokens"
        )));
    }
    let kv = KvCapacity::Tokens(usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(block_tokens));
    Ok(ExecutorOptions {
        model: options,
        max_slots: slots,
        max_step_tokens: tokens,
        max_context: sizes.max_context,
        kv,
    })
}
