//! Decoders of the Llama family.

mod ahead;
mod forward;
mod load;

use std::sync::Arc;

use trireme_llm::checkpoint::{DecoderConfig, Rope, RopeLayout, Weight};
use trireme_llm::executor::BlockId;

use crate::attend::Heads;
use crate::error::EngineError;
use crate::kernels::Kernels;
use crate::kv::{BLOCK_TOKENS, KvCache, KvPool, KvShape};
use crate::linear::{Activations, Epilogue, Linear};
use crate::threads::Pool;

/// Most rows that run through the layers together; longer prompts are cut into pieces of it. Results do not depend on
/// it: it bounds the memory of a step.
pub const MAX_STEP_ROWS: usize = 512;

/// Which rows of a sequence's tokens become logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: a piece of a prompt that goes on.
    None,
    Last,
    All,
}

/// One sequence's part of a step: `tokens` at the positions from `start` on, which lie in the blocks of `table`.
pub(crate) struct Segment<'a> {
    pub(crate) table: &'a [BlockId],
    pub(crate) start: usize,
    pub(crate) tokens: &'a [u32],
    pub(crate) logits: LogitsWanted,
}

/// A loaded decoder with its own working memory. Clones share weights and threads.
pub struct LlamaModel {
    weights: Arc<Weights>,
    scratch: Scratch,
}

struct Weights {
    config: DecoderConfig,
    rope: Rope,
    rope_layout: RopeLayout,
    kernels: Kernels,
    pool: Arc<Pool>,
    kv: KvShape,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Linear,
}

struct Layer {
    input_norm: Vec<f32>,
    /// q, k and v, one after another.
    qkv: Linear,
    qkv_bias: Bias,
    /// Of each head, before it is turned.
    qk_norms: Option<QkNorms>,
    o: Linear,
    o_bias: Bias,
    post_norm: Vec<f32>,
    gate_up: Linear,
    down: Linear,
}

/// `head_dim` weights of queries and of keys.
struct QkNorms {
    q: Vec<f32>,
    k: Vec<f32>,
}

/// A layer's bias, if it has one.
struct Bias(Option<Vec<f32>>);

impl Bias {
    fn store(&self) -> Epilogue<'_> {
        self.0.as_deref().map_or(Epilogue::Store, Epilogue::Bias)
    }

    fn add(&self) -> Epilogue<'_> {
        self.0.as_deref().map_or(Epilogue::Add, Epilogue::BiasAdd)
    }
}

/// Buffers of a step, kept between steps.
#[derive(Default)]
struct Scratch {
    /// The residual stream, `[rows, hidden]`.
    hidden: Vec<f32>,
    /// Queries, keys and values, `[rows, (heads + 2 * kv heads) * head_dim]`.
    qkv: Vec<f32>,
    /// What attention gives, `[rows, heads * head_dim]`.
    attended: Activations,
    /// SwiGLU's result, `[rows, intermediate]`.
    gated: Activations,
    /// The normalised stream, `[rows, hidden]`.
    x: Activations,
    /// Cosines and sines, `head_dim / 2` a row.
    angles: Vec<[f32; 2]>,
    /// Rows of `vocab_size`; may be longer than what the last step wrote.
    logits: Vec<f32>,
}

impl LlamaModel {
    pub fn config(&self) -> &DecoderConfig {
        &self.weights.config
    }

    /// Name of the kernels in use.
    pub fn kernels(&self) -> &'static str {
        self.weights.kernels.name
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.weights.pool.threads()
    }

    /// An empty cache for a sequence of up to `max_position_embeddings` tokens.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(self.weights.kv, self.weights.config.max_position_embeddings)
    }

    /// Bytes of weights that a step reads, whatever its rows (the head included, the embedding's few rows not).
    pub fn weight_bytes(&self) -> usize {
        let layers = self.weights.layers.iter();
        let linear = |l: &Layer| l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
        layers.map(linear).sum::<usize>() + self.weights.head.bytes()
    }

    /// Runs `tokens` behind what `cache` holds and gives the wanted logits: rows of `vocab_size`.
    ///
    /// A token's logits are the same to the last bit whether it comes alone or among others, whatever the number of
    /// threads.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, no token is given, or the cache would grow over the model's context. The
    /// cache then holds what it held before.
    pub fn forward(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        logits: LogitsWanted,
    ) -> Result<&[f32], EngineError> {
        self.weights.check(tokens, cache)?;
        let mut done = 0;
        let last_piece = (tokens.len() - 1) / MAX_STEP_ROWS;
        for (i, piece) in tokens.chunks(MAX_STEP_ROWS).enumerate() {
            let logits = match logits {
                LogitsWanted::Last if i < last_piece => LogitsWanted::None,
                wanted => wanted,
            };
            cache.reserve(piece.len())?;
            let segment = Segment { table: &cache.table, start: cache.len(), tokens: piece, logits };
            done = self.weights.step(&mut self.scratch, &mut cache.pool, &[segment], done);
            cache.advance(piece.len());
        }
        Ok(&self.scratch.logits[..done])
    }

    /// Runs checked segments over the blocks of `kv` and gives the wanted logits in their order: rows of `vocab_size`, the
    /// caller's to change.
    pub(crate) fn step(&mut self, kv: &mut KvPool, segments: &[Segment<'_>]) -> &mut [f32] {
        let n = self.weights.step(&mut self.scratch, kv, segments, 0);
        &mut self.scratch.logits[..n]
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.weights.pool
    }

    /// Positions and bytes of a block of keys and values, all layers together.
    pub(crate) fn kv_block(&self) -> Result<(usize, usize), EngineError> {
        let bytes = self.weights.kv.block_bytes().ok_or_else(|| {
            EngineError::Config("a block of keys and values has more bytes than can be counted".to_owned())
        })?;
        Ok((BLOCK_TOKENS, bytes))
    }

    /// Bytes of a step's buffers for each of its rows, roughly: activations in `f32` and as kernels want them.
    pub(crate) fn row_bytes(&self) -> usize {
        let c = &self.weights.config;
        let qkv = (c.num_heads + 2 * c.num_kv_heads).saturating_mul(c.head_dim);
        let width = qkv.saturating_add(3 * c.hidden_size).saturating_add(2 * c.intermediate_size);
        width.saturating_add(c.head_dim).saturating_mul(8)
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        self.weights.kv
    }
}

impl Clone for LlamaModel {
    fn clone(&self) -> Self {
        Self { weights: Arc::clone(&self.weights), scratch: Scratch::default() }
    }
}

impl Weights {
    fn heads(&self) -> Heads {
        Heads { query: self.config.num_heads, kv: self.config.num_kv_heads, dim: self.config.head_dim }
    }

    fn check(&self, tokens: &[u32], cache: &KvCache) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::Empty);
        }
        if cache.pool.shape() != self.kv {
            return Err(EngineError::Config("the cache belongs to another model".into()));
        }
        let vocab = self.config.vocab_size;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(EngineError::TokenOutOfRange { id, vocab });
        }
        let needed = cache.len().saturating_add(tokens.len());
        if needed > cache.max_positions() {
            return Err(EngineError::CacheFull { capacity: cache.max_positions(), needed });
        }
        Ok(())
    }
}
