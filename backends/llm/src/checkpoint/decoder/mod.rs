//! The Llama family: hyper-parameters from either format, and the weights it needs.

mod config;
mod rope;

pub use config::DecoderConfig;
pub use rope::{Rope, RopeScaling};

use super::config::{Architecture, RopeLayout};
use super::error::CheckpointErrorKind as Kind;
use super::gguf::Metadata;
use super::hf::HfFolder;
use super::limits::{MAX_CONTEXT, positive, positive_f32};
use super::registry::{ArchitectureEntry, Expected, GgufEntry, ShapeOf};

inventory::submit! {
    ArchitectureEntry {
        hf_name: "LlamaForCausalLM",
        from_hf,
        optional_prefix: "",
        gguf: Some(GgufEntry { name: "llama", rope_layout: RopeLayout::Interleaved, from_gguf, canonical_name }),
        expected,
    }
}

fn from_hf(folder: &HfFolder) -> Result<Architecture, Kind> {
    let config = folder.config();
    for scaling in ["rope_scaling", "rope_parameters"] {
        if let Some(kind) = config.rope_type(scaling)? {
            return Err(Kind::Unsupported(format!("rope scaling '{kind}'")));
        }
    }
    for key in ["attention_bias", "mlp_bias"] {
        if config.bool(key)?.unwrap_or(false) {
            return Err(Kind::Unsupported(format!("'{key}': true")));
        }
    }
    config.only("hidden_act", &["silu", "swish"])?;
    let hidden_size = config.size("hidden_size")?;
    let num_heads = config.size("num_attention_heads")?;
    let head_dim = match config.optional_size("head_dim")? {
        Some(n) => n,
        None => hidden_size / num_heads,
    };
    let rope_theta = match config.number("rope_theta")? {
        Some(theta) => theta,
        None => config.rope_parameter("rope_theta")?.unwrap_or(10_000.0),
    };
    check(DecoderConfig {
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        intermediate_size: config.size("intermediate_size")?,
        num_layers: config.size("num_hidden_layers")?,
        num_heads,
        num_kv_heads: config.optional_size("num_key_value_heads")?.unwrap_or(num_heads),
        head_dim,
        rope_theta: positive_f32("rope_theta", rope_theta)?,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        rms_norm_eps: positive_f32("rms_norm_eps", config.number("rms_norm_eps")?.unwrap_or(1e-6))?,
        max_position_embeddings: config.optional_size("max_position_embeddings")?.unwrap_or(2048),
        tie_word_embeddings: config.bool("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: folder.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: folder.token_ids("eos_token_id")?,
        pad_token_id: folder.token_ids("pad_token_id")?.first().copied(),
    })
}

fn from_gguf(meta: &Metadata, shape: &ShapeOf<'_>) -> Result<Architecture, Kind> {
    let scaling = meta.optional_str("llama.rope.scaling.type")?.filter(|s| *s != "none");
    if let Some(kind) = scaling {
        return Err(Kind::Unsupported(format!("rope scaling '{kind}'")));
    }
    if shape("rope_freqs.weight").is_some() {
        return Err(Kind::Unsupported("rope scaling 'llama3'".into()));
    }
    if meta.optional_size("llama.expert_count")?.is_some_and(|n| n > 0) {
        return Err(Kind::Unsupported("a mixture of experts".into()));
    }
    let hidden_size = meta.size("llama.embedding_length")?;
    let num_heads = positive("llama.attention.head_count", meta.size("llama.attention.head_count")? as u64)?;
    let head_dim = match meta.optional_size("llama.attention.key_length")? {
        Some(n) => n,
        None => hidden_size / num_heads,
    };
    if meta.optional_size("llama.rope.dimension_count")?.is_some_and(|n| n != head_dim) {
        return Err(Kind::Unsupported("a rotary embedding of a part of the head".into()));
    }
    // The embedding's rows are what counts: some writers leave the vocabulary's size out, some pad the matrix.
    let vocab_size = shape("token_embd.weight").and_then(|s| s.first().copied());
    let mut eos_token_ids: Vec<u32> = Vec::new();
    for key in ["eos_token_id", "eot_token_id"] {
        if let Some(id) = meta.optional_id(&format!("tokenizer.ggml.{key}"))?
            && !eos_token_ids.contains(&id)
        {
            eos_token_ids.push(id);
        }
    }
    check(DecoderConfig {
        vocab_size: vocab_size
            .ok_or_else(|| Kind::MissingWeight { name: "token_embd.weight".into(), hint: String::new() })?,
        hidden_size,
        intermediate_size: meta.size("llama.feed_forward_length")?,
        num_layers: meta.size("llama.block_count")?,
        num_heads,
        num_kv_heads: meta.optional_size("llama.attention.head_count_kv")?.unwrap_or(num_heads),
        head_dim,
        rope_theta: positive_f32(
            "llama.rope.freq_base",
            meta.optional_number("llama.rope.freq_base")?.unwrap_or(10_000.0),
        )?,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        rms_norm_eps: positive_f32(
            "llama.attention.layer_norm_rms_epsilon",
            meta.number("llama.attention.layer_norm_rms_epsilon")?,
        )?,
        max_position_embeddings: meta.size("llama.context_length")?,
        tie_word_embeddings: shape("output.weight").is_none(),
        bos_token_id: meta.optional_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids,
        pad_token_id: meta.optional_id("tokenizer.ggml.padding_token_id")?,
    })
}

/// What an engine may rely on besides the shapes of the weights.
fn check(c: DecoderConfig) -> Result<Architecture, Kind> {
    for (name, value) in [
        ("vocabulary size", c.vocab_size),
        ("hidden size", c.hidden_size),
        ("intermediate size", c.intermediate_size),
        ("number of layers", c.num_layers),
        ("number of heads", c.num_heads),
        ("number of key-value heads", c.num_kv_heads),
        ("head size", c.head_dim),
        ("context length", c.max_position_embeddings),
    ] {
        positive(name, value as u64)?;
    }
    if !c.num_heads.is_multiple_of(c.num_kv_heads) {
        let (h, k) = (c.num_heads, c.num_kv_heads);
        return Err(Kind::Malformed(format!("{h} heads cannot be shared out among {k} key-value heads")));
    }
    if !c.head_dim.is_multiple_of(2) {
        return Err(Kind::Malformed(format!(
            "the head size {} is odd, rotary embeddings need pairs",
            c.head_dim
        )));
    }
    if c.num_heads.checked_mul(c.head_dim).is_none() {
        return Err(Kind::malformed("number of heads x head size overflows"));
    }
    if c.max_position_embeddings > MAX_CONTEXT {
        return Err(Kind::Malformed(format!(
            "a context of {} tokens is over the limit of {MAX_CONTEXT}",
            c.max_position_embeddings
        )));
    }
    let special = c.eos_token_ids.iter().chain(&c.bos_token_id).chain(&c.pad_token_id);
    if let Some(id) = special.copied().find(|&id| id as usize >= c.vocab_size) {
        return Err(Kind::Malformed(format!("token id {id} is outside the vocabulary of {}", c.vocab_size)));
    }
    Ok(Architecture::Decoder(c))
}

fn expected(architecture: &Architecture) -> Box<dyn Iterator<Item = Expected> + '_> {
    let Architecture::Decoder(c) = architecture else { return Box::new(std::iter::empty()) };
    let (hidden, inter) = (c.hidden_size, c.intermediate_size);
    let q = c.num_heads * c.head_dim;
    let kv = c.num_kv_heads * c.head_dim;
    let outer = [
        ("model.embed_tokens.weight".to_owned(), vec![c.vocab_size, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    let head = (!c.tie_word_embeddings).then(|| ("lm_head.weight".to_owned(), vec![c.vocab_size, hidden]));
    let layers = (0..c.num_layers).flat_map(move |i| {
        [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![q, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, q]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inter, hidden]),
            ("mlp.up_proj", vec![inter, hidden]),
            ("mlp.down_proj", vec![hidden, inter]),
        ]
        .map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape))
    });
    Box::new(outer.into_iter().chain(head).chain(layers))
}

fn canonical_name(gguf: &str) -> Option<String> {
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
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{suffix}"))
}
