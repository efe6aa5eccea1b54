//! The BERT family of encoders: hyper-parameters and the weights it needs.

use super::config::{Architecture, BertConfig};
use super::error::CheckpointErrorKind as Kind;
use super::hf::HfFolder;
use super::limits::{MAX_CONTEXT, positive, positive_f32};
use super::registry::{ArchitectureEntry, Expected};

inventory::submit! {
    ArchitectureEntry { hf_name: "BertModel", from_hf, optional_prefix: "bert.", gguf: None, expected }
}

fn from_hf(folder: &HfFolder) -> Result<Architecture, Kind> {
    let config = folder.config();
    config.only("hidden_act", &["gelu"])?;
    config.only("position_embedding_type", &["absolute"])?;
    let (pooling, normalize) = folder.pooling()?;
    let c = BertConfig {
        vocab_size: config.size("vocab_size")?,
        hidden_size: config.size("hidden_size")?,
        intermediate_size: config.size("intermediate_size")?,
        num_layers: config.size("num_hidden_layers")?,
        num_heads: config.size("num_attention_heads")?,
        max_position_embeddings: config.size("max_position_embeddings")?,
        max_tokens: folder
            .max_seq_length()?
            .unwrap_or(usize::MAX)
            .min(config.size("max_position_embeddings")?),
        type_vocab_size: config.optional_size("type_vocab_size")?.unwrap_or(2),
        layer_norm_eps: positive_f32("layer_norm_eps", config.number("layer_norm_eps")?.unwrap_or(1e-12))?,
        pooling,
        normalize,
    };
    for (name, value) in [
        ("vocabulary size", c.vocab_size),
        ("hidden size", c.hidden_size),
        ("intermediate size", c.intermediate_size),
        ("number of layers", c.num_layers),
        ("number of heads", c.num_heads),
        ("context length", c.max_position_embeddings),
        ("number of token types", c.type_vocab_size),
    ] {
        positive(name, value as u64)?;
    }
    if !c.hidden_size.is_multiple_of(c.num_heads) {
        let (d, h) = (c.hidden_size, c.num_heads);
        return Err(Kind::Malformed(format!("a hidden size of {d} cannot be shared out among {h} heads")));
    }
    if c.max_position_embeddings > MAX_CONTEXT {
        return Err(Kind::malformed(format!(
            "a context of {} tokens is over the limit",
            c.max_position_embeddings
        )));
    }
    Ok(Architecture::Bert(c))
}

fn expected(architecture: &Architecture) -> Box<dyn Iterator<Item = Expected> + '_> {
    let Architecture::Bert(c) = architecture else { return Box::new(std::iter::empty()) };
    let (hidden, inter) = (c.hidden_size, c.intermediate_size);
    let outer = [
        ("word_embeddings.weight", vec![c.vocab_size, hidden]),
        ("position_embeddings.weight", vec![c.max_position_embeddings, hidden]),
        ("token_type_embeddings.weight", vec![c.type_vocab_size, hidden]),
        ("LayerNorm.weight", vec![hidden]),
        ("LayerNorm.bias", vec![hidden]),
    ]
    .map(|(name, shape)| (format!("embeddings.{name}"), shape));
    let layers = (0..c.num_layers).flat_map(move |i| {
        [
            ("attention.self.query", vec![hidden, hidden]),
            ("attention.self.key", vec![hidden, hidden]),
            ("attention.self.value", vec![hidden, hidden]),
            ("attention.output.dense", vec![hidden, hidden]),
            ("attention.output.LayerNorm", vec![hidden]),
            ("intermediate.dense", vec![inter, hidden]),
            ("output.dense", vec![hidden, inter]),
            ("output.LayerNorm", vec![hidden]),
        ]
        .into_iter()
        .flat_map(move |(name, shape)| {
            let name = format!("encoder.layer.{i}.{name}");
            let bias = (format!("{name}.bias"), vec![shape[0]]);
            [(format!("{name}.weight"), shape), bias]
        })
    });
    Box::new(outer.into_iter().chain(layers))
}
