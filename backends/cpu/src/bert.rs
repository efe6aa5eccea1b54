//! Encoders of the BERT family: texts to vectors.

use std::sync::Arc;

use trireme_llm::checkpoint::{Architecture, BertConfig, Checkpoint, Pooling, Weight};
use trireme_llm::executor::BlockId;

use crate::attend::{AttentionPlan, Heads, LayerKv, Mask};
use crate::error::EngineError;
use crate::kernels::Kernels;
use crate::kernels::isa::LANES;
use crate::kv::{BLOCK_TOKENS, KvDtype, KvPool, KvShape, MAX_HEAD_DIM};
use crate::linear::{Activations, Epilogue, Layout, Linear, each_row};
use crate::ops::half;
use crate::options::Options;
use crate::shared::SharedMut;
use crate::threads::Pool;

/// Most tokens that run through the layers together. Results do not depend on it.
const MAX_STEP_ROWS: usize = 1024;

/// A loaded encoder with its own working memory. Clones share weights and threads.
pub struct BertModel {
    weights: Arc<Weights>,
    scratch: Scratch,
}

struct Weights {
    config: BertConfig,
    kernels: Kernels,
    pool: Arc<Pool>,
    words: Weight,
    positions: Vec<f32>,
    /// The row of token type 0: texts are single.
    token_type: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    qkv: Linear,
    qkv_bias: Vec<f32>,
    attention_out: Linear,
    attention_out_bias: Vec<f32>,
    attention_norm: Norm,
    up: Linear,
    up_bias: Vec<f32>,
    down: Linear,
    down_bias: Vec<f32>,
    norm: Norm,
}

struct Scratch {
    hidden: Vec<f32>,
    qkv: Vec<f32>,
    attended: Activations,
    inner: Activations,
    x: Activations,
    /// Keys and values of one layer for all texts of a step.
    kv: KvPool,
    /// Each text's blocks.
    tables: Vec<Vec<BlockId>>,
}

impl BertModel {
    /// Loads the encoder of `checkpoint`.
    pub fn load(checkpoint: &Checkpoint, options: Options) -> Result<Self, EngineError> {
        let Architecture::Bert(config) = &checkpoint.architecture else {
            return Err(EngineError::WrongArchitecture { found: "Llama", wanted: "BERT" });
        };
        let kernels = Kernels::select(options.kernels)?;
        let head_dim = config.hidden_size / config.num_heads;
        for (what, value) in [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("head size", head_dim),
        ] {
            if !value.is_multiple_of(LANES) {
                return Err(EngineError::Shape { what, value, multiple: LANES });
            }
        }
        if head_dim > MAX_HEAD_DIM {
            return Err(EngineError::Config(format!(
                "head size {head_dim} is over the limit of {MAX_HEAD_DIM}"
            )));
        }
        let pool = Arc::new(Pool::new(options.threads)?);
        let vector = |name: String| Ok::<_, EngineError>(checkpoint.weight(&name)?.to_f32());
        let norm = |name: String| {
            Ok::<_, EngineError>(Norm {
                weight: vector(format!("{name}.weight"))?,
                bias: vector(format!("{name}.bias"))?,
            })
        };
        let linear = |names: &[String]| -> Result<(Linear, Vec<f32>), EngineError> {
            let mut weights = Vec::new();
            let mut bias = Vec::new();
            for name in names {
                weights.push(checkpoint.weight(&format!("{name}.weight"))?.clone());
                bias.extend(vector(format!("{name}.bias"))?);
            }
            Ok((Linear::new(&weights, Layout::Stacked, &kernels, &pool)?, bias))
        };
        let mut layers = Vec::with_capacity(config.num_layers);
        for i in 0..config.num_layers {
            let name = |module: &str| format!("encoder.layer.{i}.{module}");
            let (qkv, qkv_bias) =
                linear(&["query", "key", "value"].map(|p| name(&format!("attention.self.{p}"))))?;
            let (attention_out, attention_out_bias) = linear(&[name("attention.output.dense")])?;
            let (up, up_bias) = linear(&[name("intermediate.dense")])?;
            let (down, down_bias) = linear(&[name("output.dense")])?;
            layers.push(Layer {
                qkv,
                qkv_bias,
                attention_out,
                attention_out_bias,
                attention_norm: norm(name("attention.output.LayerNorm"))?,
                up,
                up_bias,
                down,
                down_bias,
                norm: norm(name("output.LayerNorm"))?,
            });
        }
        let mut token_type = vector("embeddings.token_type_embeddings.weight".into())?;
        token_type.truncate(config.hidden_size);
        let weights = Weights {
            words: checkpoint.weight("embeddings.word_embeddings.weight")?.clone(),
            positions: vector("embeddings.position_embeddings.weight".into())?,
            token_type,
            norm: norm("embeddings.LayerNorm".into())?,
            config: config.clone(),
            kernels,
            pool,
            layers,
        };
        Ok(Self { scratch: weights.scratch(), weights: Arc::new(weights) })
    }

    pub fn config(&self) -> &BertConfig {
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

    /// The vector of each text (`hidden_size` elements, unit length if the model normalises). Texts are token ids,
    /// special tokens included; they run together without padding, and each gives the same vector as alone.
    ///
    /// # Errors
    /// If a text is empty, longer than `max_tokens`, or has an id outside the vocabulary.
    pub fn embed(&mut self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError> {
        let c = &self.weights.config;
        for text in texts {
            if text.is_empty() {
                return Err(EngineError::Empty);
            }
            if text.len() > c.max_tokens {
                return Err(EngineError::TextTooLong { tokens: text.len(), limit: c.max_tokens });
            }
            if let Some(&id) = text.iter().find(|&&id| id as usize >= c.vocab_size) {
                return Err(EngineError::TokenOutOfRange { id, vocab: c.vocab_size });
            }
        }
        let mut vectors = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |text: &&Vec<u32>| {
                rows += text.len();
                rows <= MAX_STEP_ROWS
            };
            let n = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(n);
            self.weights.step(&mut self.scratch, now, &mut vectors)?;
            rest = later;
        }
        Ok(vectors)
    }
}

impl Clone for BertModel {
    fn clone(&self) -> Self {
        Self { weights: Arc::clone(&self.weights), scratch: self.weights.scratch() }
    }
}

impl Weights {
    fn heads(&self) -> Heads {
        let n = self.config.num_heads;
        Heads { query: n, kv: n, dim: self.config.hidden_size / n }
    }

    fn scratch(&self) -> Scratch {
        let Heads { kv, dim, .. } = self.heads();
        Scratch {
            hidden: Vec::new(),
            qkv: Vec::new(),
            attended: Activations::default(),
            inner: Activations::default(),
            x: Activations::default(),
            kv: KvPool::new(KvShape { layers: 1, kv_heads: kv, head_dim: dim, dtype: KvDtype::F32 }),
            tables: Vec::new(),
        }
    }

    fn step(&self, s: &mut Scratch, texts: &[Vec<u32>], out: &mut Vec<Vec<f32>>) -> Result<(), EngineError> {
        let (c, pool, kernels, heads) = (&self.config, &*self.pool, &self.kernels, self.heads());
        let hidden = c.hidden_size;
        let rows: usize = texts.iter().map(Vec::len).sum();
        let mut blocks = 0;
        s.tables.clear();
        for text in texts {
            let first = blocks;
            blocks += text.len().div_ceil(BLOCK_TOKENS);
            s.tables.push((first..blocks).map(|b| BlockId(b as u32)).collect());
        }
        s.kv.grow(blocks)?;
        s.kv.touch_all();
        self.embed_tokens(s, texts, rows);
        let mut plan =
            AttentionPlan::new(texts.iter().map(|t| (t.len(), 0)), heads, Mask::None, pool.threads());
        s.qkv.resize(rows * 3 * hidden, 0.0);
        s.attended.resize(rows, hidden);
        s.inner.resize(rows, c.intermediate_size);
        s.x.resize(rows, hidden);
        for layer in &self.layers {
            self.copy_hidden(s, &layer.qkv);
            layer.qkv.apply(pool, kernels, &s.x, &mut s.qkv, 3 * hidden, Epilogue::Bias(&layer.qkv_bias));
            self.store_keys_and_values(s, texts, rows);
            let tables: Vec<&[BlockId]> = s.tables.iter().map(Vec::as_slice).collect();
            let kv = LayerKv { pool: &s.kv, tables: &tables, layer: 0 };
            plan.run(pool, kernels, heads, kv, &s.qkv, 3 * hidden, &mut s.attended.x);
            s.attended.ready(pool, kernels, &layer.attention_out);
            let epilogue = Epilogue::BiasAdd(&layer.attention_out_bias);
            layer.attention_out.apply(pool, kernels, &s.attended, &mut s.hidden, hidden, epilogue);
            self.normalize(&mut s.hidden, &layer.attention_norm, rows);

            self.copy_hidden(s, &layer.up);
            let epilogue = Epilogue::BiasGelu(&layer.up_bias);
            layer.up.apply(pool, kernels, &s.x, &mut s.inner.x, c.intermediate_size, epilogue);
            s.inner.ready(pool, kernels, &layer.down);
            let epilogue = Epilogue::BiasAdd(&layer.down_bias);
            layer.down.apply(pool, kernels, &s.inner, &mut s.hidden, hidden, epilogue);
            self.normalize(&mut s.hidden, &layer.norm, rows);
        }
        let mut first = 0;
        for text in texts {
            out.push(self.pool_rows(&s.hidden[first * hidden..(first + text.len()) * hidden]));
            first += text.len();
        }
        Ok(())
    }

    /// Word, position and type embeddings, normalised.
    fn embed_tokens(&self, s: &mut Scratch, texts: &[Vec<u32>], rows: usize) {
        let hidden = self.config.hidden_size;
        s.hidden.resize(rows * hidden, 0.0);
        let places: Vec<(u32, usize)> = texts.iter().flat_map(|t| t.iter().copied().zip(0..)).collect();
        let out = SharedMut::new(&mut s.hidden);
        each_row(&self.pool, rows, |m| {
            let (token, position) = places[m];
            // SAFETY: every row is visited once.
            let to = unsafe { out.part(m * hidden..(m + 1) * hidden) };
            self.words.row_to_f32(token as usize, to);
            let position = &self.positions[position * hidden..(position + 1) * hidden];
            for ((to, p), t) in to.iter_mut().zip(position).zip(&self.token_type) {
                *to += p + t;
            }
        });
        self.normalize(&mut s.hidden, &self.norm, rows);
    }

    /// The stream as the activations of the next product, which will be added to the stream itself.
    fn copy_hidden(&self, s: &mut Scratch, consumer: &Linear) {
        let hidden = self.config.hidden_size;
        let from = &s.hidden;
        s.x.fill(&self.pool, &self.kernels, consumer, |m, x| {
            x.copy_from_slice(&from[m * hidden..][..hidden])
        });
    }

    fn normalize(&self, x: &mut [f32], norm: &Norm, rows: usize) {
        let hidden = self.config.hidden_size;
        let x = SharedMut::new(x);
        each_row(&self.pool, rows, |m| {
            // SAFETY: every row is visited once.
            let row = unsafe { x.part(m * hidden..(m + 1) * hidden) };
            (self.kernels.layer_norm)(row, &norm.weight, &norm.bias, self.config.layer_norm_eps);
        });
    }

    /// Keys and values into their blocks; queries are scaled where they are.
    fn store_keys_and_values(&self, s: &mut Scratch, texts: &[Vec<u32>], rows: usize) {
        let heads = self.heads();
        let (hidden, hd) = (self.config.hidden_size, heads.dim);
        let scale = 1.0 / (hd as f32).sqrt();
        let mut places = Vec::with_capacity(rows);
        for (text, table) in texts.iter().zip(&s.tables) {
            places.extend((0..text.len()).map(|p| (table[p / BLOCK_TOKENS], p)));
        }
        let writer = s.kv.writer();
        let qkv = SharedMut::new(&mut s.qkv);
        each_row(&self.pool, rows, |m| {
            // SAFETY: every row is visited once.
            let row = unsafe { qkv.part(m * 3 * hidden..(m + 1) * 3 * hidden) };
            let (q, kv) = row.split_at_mut(hidden);
            let (k, v) = kv.split_at(hidden);
            q.iter_mut().for_each(|q| *q *= scale);
            let (block, position) = places[m];
            for (head, (k, v)) in k.chunks_exact(hd).zip(v.chunks_exact(hd)).enumerate() {
                // SAFETY: a row has a position of its own, and attention begins when all rows are done.
                unsafe { writer.write(block, 0, head, position, k, v, half::reference) };
            }
        });
    }

    /// One vector from the rows of a text.
    fn pool_rows(&self, rows: &[f32]) -> Vec<f32> {
        let hidden = self.config.hidden_size;
        let n = rows.len() / hidden;
        let all = rows.chunks_exact(hidden);
        let weighted = |weight: &dyn Fn(usize) -> f32| {
            let mut sum = vec![0.0; hidden];
            for (i, row) in all.clone().enumerate() {
                sum.iter_mut().zip(row).for_each(|(v, x)| *v += weight(i) * x);
            }
            sum
        };
        let mut vector = match self.config.pooling {
            Pooling::Cls => rows[..hidden].to_vec(),
            Pooling::LastToken => rows[(n - 1) * hidden..].to_vec(),
            Pooling::Mean => weighted(&|_| 1.0).into_iter().map(|v| v / n as f32).collect(),
            Pooling::MeanSqrtLen => weighted(&|_| 1.0).into_iter().map(|v| v / (n as f32).sqrt()).collect(),
            Pooling::WeightedMean => {
                let total = (n * (n + 1) / 2) as f32;
                weighted(&|i| (i + 1) as f32).into_iter().map(|v| v / total).collect()
            }
            Pooling::Max => {
                let mut top = rows[..hidden].to_vec();
                all.for_each(|row| top.iter_mut().zip(row).for_each(|(v, x)| *v = v.max(*x)));
                top
            }
        };
        if self.config.normalize {
            let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
            vector.iter_mut().for_each(|v| *v /= norm);
        }
        vector
    }
}
