//! Decoders from the metadata of a GGUF file.

use super::check;
use super::config::DecoderConfig;
use super::rope::RopeScaling;
use crate::checkpoint::config::Architecture;
use crate::checkpoint::error::CheckpointErrorKind as Kind;
use crate::checkpoint::gguf::Metadata;
use crate::checkpoint::limits::{positive, positive_f32};
use crate::checkpoint::registry::ShapeOf;
use crate::checkpoint::weight::Weight;

/// Reads the keys of the architecture named `arch`. `weight` finds tensors by their name in the file.
pub(super) fn read(
    arch: &str,
    meta: &Metadata,
    shape: &ShapeOf<'_>,
    divisors: Option<&Weight>,
) -> Result<Architecture, Kind> {
    let key = |name: &str| format!("{arch}.{name}");
    if meta.optional_size(&key("expert_count"))?.is_some_and(|n| n > 0) {
        return Err(Kind::Unsupported("a mixture of experts".into()));
    }
    let hidden_size = meta.size(&key("embedding_length"))?;
    let heads = key("attention.head_count");
    let num_heads = positive(&heads, meta.size(&heads)? as u64)?;
    let head_dim = match meta.optional_size(&key("attention.key_length"))? {
        Some(n) => n,
        None => hidden_size / num_heads,
    };
    if meta.optional_size(&key("rope.dimension_count"))?.is_some_and(|n| n != head_dim) {
        return Err(Kind::Unsupported("a rotary embedding of a part of the head".into()));
    }
    // The embedding's rows are what counts: some writers leave the vocabulary's size out, some pad the matrix.
    let vocab_size = shape("token_embd.weight").and_then(|s| s.first().copied());
    let mut eos_token_ids: Vec<u32> = Vec::new();
    for name in ["eos_token_id", "eot_token_id"] {
        if let Some(id) = meta.optional_id(&format!("tokenizer.ggml.{name}"))?
            && !eos_token_ids.contains(&id)
        {
            eos_token_ids.push(id);
        }
    }
    let has = |name: &str| shape(&format!("blk.0.{name}")).is_some();
    let number = |name: &str, default| -> Result<f32, Kind> {
        positive_f32(&key(name), meta.optional_number(&key(name))?.unwrap_or(default))
    };
    let max_position_embeddings = meta.size(&key("context_length"))?;
    check(DecoderConfig {
        vocab_size: vocab_size
            .ok_or_else(|| Kind::MissingWeight { name: "token_embd.weight".into(), hint: String::new() })?,
        hidden_size,
        intermediate_size: meta.size(&key("feed_forward_length"))?,
        num_layers: meta.size(&key("block_count"))?,
        num_heads,
        num_kv_heads: meta.optional_size(&key("attention.head_count_kv"))?.unwrap_or(num_heads),
        head_dim,
        rope_theta: number("rope.freq_base", 10_000.0)?,
        rope_scaling: scaling(arch, meta, head_dim, max_position_embeddings, divisors)?,
        rms_norm_eps: positive_f32(
            &key("attention.layer_norm_rms_epsilon"),
            meta.number(&key("attention.layer_norm_rms_epsilon"))?,
        )?,
        max_position_embeddings,
        sliding_window: meta.optional_size(&key("attention.sliding_window"))?.filter(|&n| n > 0),
        first_window_layer: 0,
        qkv_bias: has("attn_q.bias"),
        output_bias: has("attn_output.bias"),
        mlp_bias: has("ffn_down.bias"),
        qk_norm: has("attn_q_norm.weight"),
        tie_word_embeddings: shape("output.weight").is_none(),
        bos_token_id: meta.optional_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids,
        pad_token_id: meta.optional_id("tokenizer.ggml.padding_token_id")?,
    })
}

/// `rope.scaling.*`, or a divisor for each frequency in `rope_freqs.weight`. The context that the file states has the
/// scaling in it.
fn scaling(
    arch: &str,
    meta: &Metadata,
    head_dim: usize,
    context: usize,
    divisors: Option<&Weight>,
) -> Result<RopeScaling, Kind> {
    let key = |name: &str| format!("{arch}.rope.scaling.{name}");
    let kind = meta.optional_str(&key("type"))?.filter(|s| *s != "none");
    if let Some(weight) = divisors {
        if kind.is_some() {
            return Err(Kind::Unsupported("'rope_freqs.weight' beside another rope scaling".into()));
        }
        let values = weight.to_f32();
        if values.len() != head_dim / 2 || !values.iter().all(|d| d.is_finite() && *d > 0.0) {
            return Err(Kind::Malformed(format!(
                "'rope_freqs.weight' must hold {} positive numbers",
                head_dim / 2
            )));
        }
        return Ok(RopeScaling::Divisors(values));
    }
    let number = |name: &str, default: f64| -> Result<f32, Kind> {
        positive_f32(&key(name), meta.optional_number(&key(name))?.unwrap_or(default))
    };
    match kind {
        None => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor", 1.0)? }),
        Some("yarn") => {
            let factor = number("factor", 1.0)?;
            let original_max = meta.optional_size(&key("original_context_length"))?.unwrap_or(context);
            let own = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            Ok(RopeScaling::Yarn {
                factor,
                original_max,
                beta_fast: number("yarn_beta_fast", 32.0)?,
                beta_slow: number("yarn_beta_slow", 1.0)?,
                attention_factor: own * number("attn_factor", 1.0)?,
                truncate: true,
            })
        }
        Some(other) => Err(Kind::Unsupported(format!("rope scaling '{other}'"))),
    }
}

/// The Hugging Face name of a tensor.
pub(super) fn canonical_name(gguf: &str) -> Option<String> {
    match gguf {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = gguf.strip_prefix("blk.")?.split_once('.')?;
    let (module, suffix) = rest.rsplit_once('.')?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{suffix}"))
}
