//! Whether a model's shapes fit in memory, known before anything is allocated.

/// What a model needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// All that may be used.
    pub available: u64,
    pub weights: u64,
    /// Activations and workspace for each row of the largest step.
    pub per_token: u64,
    /// State for each sequence: its row of logits, its counts for penalties.
    pub per_sequence: u64,
    /// A block of keys and values, all layers together, and its positions.
    pub block_bytes: u64,
    pub block_tokens: u64,
}

/// How the memory is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Rows and sequences.
    pub workspace_bytes: u64,
    /// Blocks that fit into the rest.
    pub num_blocks: u64,
    pub kv_bytes: u64,
}

/// What is too large, and the largest that fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    #[error("the weights take {weights} bytes, {available} are available")]
    Weights { weights: u64, available: u64 },
    #[error(
        "max_batch_size {asked} does not fit in memory with steps of {tokens} tokens and a context of {context}: \
         the largest that fits is {largest}"
    )]
    Batch { asked: u64, tokens: u64, context: u64, largest: u64 },
    #[error(
        "steps of {asked} tokens do not fit in memory with a context of {context}: the most that fit are {largest}"
    )]
    Tokens { asked: u64, context: u64, largest: u64 },
    #[error("a context of {asked} tokens does not fit in memory: the longest that fits is {largest}")]
    Context { asked: u64, largest: u64 },
}

impl MemoryNeeds {
    /// Lays out memory for steps of `tokens` rows of up to `batch` sequences. Blocks must suffice for one sequence of
    /// `context` positions, and for one block for each sequence.
    ///
    /// # Errors
    /// Names what is too large and the largest value that fits beside the others.
    pub fn plan(&self, tokens: u64, batch: u64, context: u64) -> Result<MemoryPlan, DoesNotFit> {
        let rest = self
            .available
            .checked_sub(self.weights)
            .ok_or(DoesNotFit::Weights { weights: self.weights, available: self.available })?;
        let needed = |tokens, batch, context| self.needed(tokens, batch, context);
        let fits = |tokens, batch, context| needed(tokens, batch, context) <= u128::from(rest);
        if !fits(1, 1, context) {
            let largest = largest(context, |context| fits(1, 1, context));
            return Err(DoesNotFit::Context { asked: context, largest });
        }
        if !fits(tokens, 1, context) {
            let largest = largest(tokens, |tokens| fits(tokens, 1, context));
            return Err(DoesNotFit::Tokens { asked: tokens, context, largest });
        }
        if !fits(tokens, batch, context) {
            let largest = largest(batch, |batch| fits(tokens, batch, context));
            return Err(DoesNotFit::Batch { asked: batch, tokens, context, largest });
        }
        let workspace_bytes = u64::try_from(self.workspace(tokens, batch)).unwrap_or(rest);
        let num_blocks = (rest - workspace_bytes).checked_div(self.block_bytes).unwrap_or(0);
        Ok(MemoryPlan { workspace_bytes, num_blocks, kv_bytes: num_blocks * self.block_bytes })
    }

    fn workspace(&self, tokens: u64, batch: u64) -> u128 {
        u128::from(self.per_token) * u128::from(tokens) + u128::from(self.per_sequence) * u128::from(batch)
    }

    /// Bytes beside the weights.
    fn needed(&self, tokens: u64, batch: u64, context: u64) -> u128 {
        let blocks = context.div_ceil(self.block_tokens.max(1)).max(batch);
        self.workspace(tokens, batch) + u128::from(blocks) * u128::from(self.block_bytes)
    }
}

/// The largest number below `asked` that fits; 0 if none does. What fits is a range from 0.
fn largest(asked: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut good, mut bad) = (0, asked);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) { good = middle } else { bad = middle }
    }
    good
}
