//! The Llama family of decoders: how its members are recognised, and the weights that they need.

mod config;
mod gguf;
mod hf;
mod rope;

pub use config::DecoderConfig;
pub use rope::{Rope, RopeScaling};

use super::config::{Architecture, RopeLayout};
use super::error::CheckpointErrorKind as Kind;
use super::gguf::Metadata;
use super::limits::{MAX_CONTEXT, positive};
use super::registry::{ArchitectureEntry, Expected, GgufEntry, ShapeOf};
use super::weight::Weight;

inventory::submit! {
    ArchitectureEntry {
        hf_name: "LlamaForCausalLM",
        from_hf: hf::llama,
        optional_prefix: "",
        gguf: Some(entry("llama", RopeLayout::Interleaved, |m, s, d| gguf::read("llama", m, s, d))),
        expected,
    }
}

inventory::submit! {
    // Their GGUF files say `llama`.
    ArchitectureEntry { hf_name: "MistralForCausalLM", from_hf: hf::mistral, optional_prefix: "", gguf: None, expected }
}

inventory::submit! {
    ArchitectureEntry {
        hf_name: "Qwen2ForCausalLM",
        from_hf: hf::qwen2,
        optional_prefix: "",
        gguf: Some(entry("qwen2", RopeLayout::Half, |m, s, d| gguf::read("qwen2", m, s, d))),
        expected,
    }
}

inventory::submit! {
    ArchitectureEntry {
        hf_name: "Qwen3ForCausalLM",
        from_hf: hf::qwen3,
        optional_prefix: "",
        gguf: Some(entry("qwen3", RopeLayout::Half, |m, s, d| gguf::read("qwen3", m, s, d))),
        expected,
    }
}

type FromGguf = fn(&Metadata, &ShapeOf<'_>, Option<&Weight>) -> Result<Architecture, Kind>;

const fn entry(name: &'static str, rope_layout: RopeLayout, from_gguf: FromGguf) -> GgufEntry {
    GgufEntry { name, rope_layout, from_gguf, canonical_name: gguf::canonical_name }
}

/// Which linear layers have biases.
#[derive(Default)]
struct DecoderBiases {
    qkv: bool,
    output: bool,
    mlp: bool,
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
    if c.head_dim == 2 && matches!(c.rope_scaling, RopeScaling::Dynamic { .. }) {
        return Err(Kind::Unsupported("dynamic rope scaling of heads of 2 elements".into()));
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
        .into_iter()
        .chain(extras(c, i))
    });
    Box::new(outer.into_iter().chain(head).chain(layers))
}

/// Biases and norms that only some members have.
fn extras(c: &DecoderConfig, layer: usize) -> impl Iterator<Item = Expected> {
    let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
    [
        (c.qkv_bias, "self_attn.q_proj.bias", q),
        (c.qkv_bias, "self_attn.k_proj.bias", kv),
        (c.qkv_bias, "self_attn.v_proj.bias", kv),
        (c.output_bias, "self_attn.o_proj.bias", c.hidden_size),
        (c.mlp_bias, "mlp.gate_proj.bias", c.intermediate_size),
        (c.mlp_bias, "mlp.up_proj.bias", c.intermediate_size),
        (c.mlp_bias, "mlp.down_proj.bias", c.hidden_size),
        (c.qk_norm, "self_attn.q_norm.weight", c.head_dim),
        (c.qk_norm, "self_attn.k_norm.weight", c.head_dim),
    ]
    .into_iter()
    .filter(|(has, ..)| *has)
    .map(move |(_, name, n)| (format!("model.layers.{layer}.{name}"), vec![n]))
}
