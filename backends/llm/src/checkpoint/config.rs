//! The hyper-parameters of the known architectures, whichever file they came from.

use super::decoder::DecoderConfig;

/// Which elements of a head the rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element `i` with `i + head_dim / 2`: Hugging Face checkpoints.
    Half,
    /// Element `2i` with `2i + 1`: `llama` GGUF files, whose rows of q and k are permuted for it.
    Interleaved,
}

/// How token vectors become one vector per text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens that are not padding.
    Mean,
    /// The first token's vector.
    Cls,
    /// The largest of each element.
    Max,
    /// The sum over all tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean with weights 1, 2, 3, ... in the order of the tokens.
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

/// An encoder of the BERT family.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    /// Rows of the position embeddings.
    pub max_position_embeddings: usize,
    /// Longest text in tokens, special tokens included: `max_seq_length` of `sentence_bert_config.json` where it is less.
    pub max_tokens: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f32,
    pub pooling: Pooling,
    /// Divide the pooled vector by its L2 norm.
    pub normalize: bool,
}

/// The architecture of a checkpoint with its hyper-parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    Decoder(DecoderConfig),
    Bert(BertConfig),
}
