//! From a checkpoint to packed layers.

use std::sync::Arc;

use trireme_llm::checkpoint::{Architecture, Checkpoint, DecoderConfig, Rope};

use super::{Bias, Layer, LlamaModel, QkNorms, Scratch, Weights};
use crate::error::EngineError;
use crate::kernels::Kernels;
use crate::kernels::isa::LANES;
use crate::kv::{KvShape, MAX_HEAD_DIM};
use crate::linear::{Layout, Linear};
use crate::options::Options;
use crate::threads::Pool;

impl LlamaModel {
    /// Loads the decoder of `checkpoint`: weights are re-ordered for the kernels in their own type.
    pub fn load(checkpoint: &Checkpoint, options: Options) -> Result<Self, EngineError> {
        let Architecture::Decoder(config) = &checkpoint.architecture else {
            return Err(EngineError::WrongArchitecture { found: "BERT", wanted: "Llama" });
        };
        let kernels = Kernels::select(options.kernels)?;
        check_features(config)?;
        check_shapes(config, &kernels)?;
        let pool = Arc::new(Pool::new(options.threads)?);
        let linear = |names: &[String], layout| -> Result<Linear, EngineError> {
            let weights: Result<Vec<_>, _> = names.iter().map(|n| checkpoint.weight(n).cloned()).collect();
            Linear::new(&weights?, layout, &kernels, &pool)
        };
        let vector = |name: String| Ok::<_, EngineError>(checkpoint.weight(&name)?.to_f32());
        let bias = |names: &[String]| -> Result<Bias, EngineError> {
            let mut all = Vec::new();
            for name in names {
                all.extend(vector(name.clone())?);
            }
            Ok(Bias(Some(all)))
        };
        let mut layers = Vec::with_capacity(config.num_layers);
        for i in 0..config.num_layers {
            let name = |module: &str| format!("model.layers.{i}.{module}.weight");
            layers.push(Layer {
                input_norm: vector(name("input_layernorm"))?,
                qkv: linear(&["q", "k", "v"].map(|p| name(&format!("self_attn.{p}_proj"))), Layout::Stacked)?,
                qkv_bias: match config.qkv_bias {
                    true => {
                        bias(&["q", "k", "v"].map(|p| format!("model.layers.{i}.self_attn.{p}_proj.bias")))?
                    }
                    false => Bias(None),
                },
                qk_norms: match config.qk_norm {
                    true => Some(QkNorms {
                        q: vector(name("self_attn.q_norm"))?,
                        k: vector(name("self_attn.k_norm"))?,
                    }),
                    false => None,
                },
                o_bias: match config.output_bias {
                    true => bias(&[format!("model.layers.{i}.self_attn.o_proj.bias")])?,
                    false => Bias(None),
                },
                o: linear(&[name("self_attn.o_proj")], Layout::Stacked)?,
                post_norm: vector(name("post_attention_layernorm"))?,
                gate_up: linear(&["gate", "up"].map(|p| name(&format!("mlp.{p}_proj"))), Layout::GateUp)?,
                down: linear(&[name("mlp.down_proj")], Layout::Stacked)?,
            });
        }
        let embedding = "model.embed_tokens.weight";
        let head = if config.tie_word_embeddings { embedding } else { "lm_head.weight" };
        let weights = Weights {
            embedding: checkpoint.weight(embedding)?.clone(),
            norm: vector("model.norm.weight".into())?,
            head: linear(&[head.to_owned()], Layout::Stacked)?,
            config: config.clone(),
            rope: Rope::new(config),
            rope_layout: checkpoint.rope_layout,
            kv: KvShape {
                layers: config.num_layers,
                kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
                dtype: options.kv_dtype,
            },
            kernels,
            pool,
            layers,
        };
        Ok(Self { weights: Arc::new(weights), scratch: Scratch::default() })
    }
}

/// What the layers cannot compute is refused, not left out.
fn check_features(config: &DecoderConfig) -> Result<(), EngineError> {
    if config.mlp_bias {
        return Err(EngineError::Config(
            "biases of the MLP ('mlp_bias') cannot be computed on the CPU".into(),
        ));
    }
    Ok(())
}

/// The vectors of the kernels must come out even.
fn check_shapes(config: &DecoderConfig, kernels: &Kernels) -> Result<(), EngineError> {
    let head_dim = config.head_dim;
    if !head_dim.is_multiple_of(LANES) || head_dim > MAX_HEAD_DIM {
        // The KV cache is laid out in vectors for all kernels.
        return Err(EngineError::Config(format!(
            "head size {head_dim} is not supported: it must be a multiple of {LANES}, at most {MAX_HEAD_DIM}"
        )));
    }
    for (what, value) in
        [("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)]
    {
        if kernels.packs() && !value.is_multiple_of(LANES) {
            return Err(EngineError::Shape { what, value, multiple: LANES });
        }
    }
    Ok(())
}
