//! Sizes of an executor: what the configuration asks for, or else what the memory bears.

use std::fmt;

use trireme_llm::profile::{DoesNotFit, MemoryNeeds, MemoryPlan};
use trireme_llm::serve::Sizes;
use trireme_sdk::{Error, Result};

use super::unusable;
use crate::decoder::MAX_STEP_ROWS;

/// Sequences at a time where the configuration does not say.
const SLOTS: u64 = 64;
/// Rows of a step where the configuration does not say.
const STEP_TOKENS: u64 = MAX_STEP_ROWS as u64;
/// Positions of all sequences together where the configuration does not say, if that is more than one context.
const KV_TOKENS: u64 = 16_384;
/// The context that a model shall have at least where the configuration does not say, if the model can.
const CONTEXT: u64 = 2_048;
/// Share of the free memory that is taken at most where the configuration does not say; more if what it asks for needs it.
const USUAL_SHARE: f64 = 0.25;
/// Share of the free memory that is taken at most.
const LARGEST_SHARE: f64 = 0.9;

/// What a model costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Positions of a block of keys and values, and its bytes, all layers together.
    pub(super) block_tokens: u64,
    pub(super) block_bytes: u64,
    /// Bytes of a step's buffers for each of its rows.
    pub(super) row_bytes: u64,
    pub(super) vocab_size: u64,
    /// Positions that the model was trained for.
    pub(super) trained: u64,
}

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) slots: u64,
    pub(super) step_tokens: u64,
    pub(super) blocks: u64,
    block_tokens: u64,
    block_bytes: u64,
    free: u64,
    /// Is any of them less than what is taken where there is memory enough?
    pub(super) gave_way: bool,
}

impl Taken {
    /// Positions of all sequences together.
    pub(super) fn positions(&self) -> u64 {
        self.blocks.saturating_mul(self.block_tokens)
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(
            f,
            "max_batch_size {}, steps of {} tokens, keys and values of {} tokens (up to {} MiB)",
            self.slots,
            self.step_tokens,
            self.positions(),
            mib(self.blocks.saturating_mul(self.block_bytes)),
        )?;
        if self.gave_way {
            write!(f, ", less than usual: only {} MiB were free", mib(self.free))?;
        }
        Ok(())
    }
}

/// Sizes that fit into `free` bytes beside the weights, which are there already. Sizes that nobody asked for give way.
///
/// # Errors
/// What was asked for does not fit; names it and the largest that does.
pub(super) fn plan(costs: &Costs, sizes: &Sizes, free: u64) -> Result<Taken> {
    let asked = Asked::of(sizes)?;
    let share = |fraction: f64| (free as f64 * fraction) as u64;
    let most = costs.needs(share(asked.fraction.unwrap_or(LARGEST_SHARE)));
    // The least that would be what was asked for.
    let least = |needs: &MemoryNeeds| {
        needs.plan(asked.tokens.unwrap_or(1), asked.slots.unwrap_or(1), asked.positions().unwrap_or(1))
    };
    least(&most).map_err(|error| asked.refused(error, free))?;
    let usual = costs.needs(share(USUAL_SHARE));
    let needs = match (asked.fraction, asked.kv) {
        (None, None) if least(&usual).is_ok() => usual,
        _ => most,
    };

    let mut slots = asked.slots.unwrap_or(SLOTS);
    let mut tokens = asked.tokens.unwrap_or(STEP_TOKENS);
    let mut positions = asked.positions().unwrap_or(CONTEXT.min(costs.trained));
    let plan: MemoryPlan = loop {
        // Halves one that nobody asked for.
        let give_way = |asked: Option<u64>, size: &mut u64, least: u64| {
            let can = asked.is_none() && *size > least;
            if can {
                *size = (*size / 2).max(least);
            }
            can
        };
        match needs.plan(tokens, slots, positions) {
            Ok(plan) => break plan,
            Err(error) => {
                let gave = give_way(asked.slots, &mut slots, 8)
                    || give_way(asked.tokens, &mut tokens, 64)
                    || give_way(asked.positions(), &mut positions, 1)
                    || give_way(asked.slots, &mut slots, 1)
                    || give_way(asked.tokens, &mut tokens, 1);
                if !gave {
                    return Err(asked.refused(error, free));
                }
            }
        }
    };
    let wanted = match (asked.kv, asked.fraction) {
        (Some(kv), _) => kv,
        (None, Some(_)) => u64::MAX,
        (None, None) => KV_TOKENS.max(asked.context.unwrap_or(costs.trained)).max(slots * costs.block_tokens),
    };
    let blocks = plan.num_blocks.min(wanted.div_ceil(costs.block_tokens)).max(1);
    let less = |asked: Option<u64>, taken: u64, usual: u64| asked.is_none() && taken < usual;
    let gave_way = less(asked.slots, slots, SLOTS)
        || less(asked.tokens, tokens, STEP_TOKENS)
        || less(asked.context.or(asked.kv), blocks * costs.block_tokens, costs.trained);
    let &Costs { block_tokens, block_bytes, .. } = costs;
    Ok(Taken { slots, step_tokens: tokens, blocks, block_tokens, block_bytes, free, gave_way })
}

impl Costs {
    fn needs(&self, available: u64) -> MemoryNeeds {
        MemoryNeeds {
            available,
            weights: 0,
            per_token: self.row_bytes,
            // A row of logits, and what sampling makes of it.
            per_sequence: 3 * 4 * self.vocab_size,
            block_bytes: self.block_bytes,
            block_tokens: self.block_tokens,
        }
    }
}

/// What the configuration says.
struct Asked {
    slots: Option<u64>,
    tokens: Option<u64>,
    context: Option<u64>,
    kv: Option<u64>,
    fraction: Option<f64>,
}

impl Asked {
    fn of(sizes: &Sizes) -> Result<Self> {
        let size = |n: Option<usize>| n.map(|n| n as u64);
        let (context, kv) = (size(sizes.max_context), size(sizes.kv_tokens));
        if let (Some(context), Some(kv)) = (context, kv)
            && kv < context
        {
            return Err(Error::invalid(format!(
                "parameter 'max_tokens_in_paged_kv_cache' is {kv}, less than one context of {context} tokens"
            )));
        }
        let slots = size(sizes.max_batch_size);
        Ok(Self { slots, tokens: size(sizes.max_num_tokens), context, kv, fraction: sizes.kv_fraction })
    }

    /// Positions that there must be room for. Of keys and values beside a fraction the smaller of the two holds.
    fn positions(&self) -> Option<u64> {
        self.kv.filter(|_| self.fraction.is_none()).or(self.context)
    }

    /// In the words of the configuration.
    fn refused(&self, error: DoesNotFit, free: u64) -> Error {
        match error {
            DoesNotFit::Context { asked, largest } if self.context != Some(asked) => match self.kv {
                Some(kv) => Error::invalid(format!(
                    "parameter 'max_tokens_in_paged_kv_cache' is {kv}, the most that fit in memory are {largest}"
                )),
                None => Error::invalid(format!(
                    "{} MiB of memory are free{}, which is too little for keys and values of one request",
                    free >> 20,
                    self.fraction.map(|f| format!(", of which {f} may be taken")).unwrap_or_default()
                )),
            },
            error => unusable(error),
        }
    }
}

#[cfg(test)]
#[path = "sizes_tests.rs"]
mod tests;
