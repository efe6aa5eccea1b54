//! The hyper-parameters of a decoder of the Llama family.

use super::rope::RopeScaling;

/// A decoder of the Llama family: RMSNorm, rotary embedding, grouped attention, SwiGLU. What its members (Llama, Mistral,
/// Qwen 2 and 3) do differently is said by fields, so that an executor knows no model by name.
///
/// Weights have Hugging Face names: `model.layers.N.self_attn.{q,k,v,o}_proj.weight`, `.mlp.{gate,up,down}_proj.weight`,
/// `.input_layernorm.weight`, `.post_attention_layernorm.weight`, `model.embed_tokens.weight`, `model.norm.weight` and
/// `lm_head.weight`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Base of the rotary frequencies before scaling.
    pub rope_theta: f32,
    /// What is done to the frequencies; [`super::Rope`] computes them.
    pub rope_scaling: RopeScaling,
    pub rms_norm_eps: f32,
    /// Positions that a sequence may have, what scaling adds included.
    pub max_position_embeddings: usize,
    /// Positions that a token attends to, itself included, in the layers that have a window. Ask [`Self::window`].
    pub sliding_window: Option<usize>,
    /// The first layer that has the window; those before it attend to everything.
    pub first_window_layer: usize,
    /// q, k and v add `self_attn.{q,k,v}_proj.bias`.
    pub qkv_bias: bool,
    /// The attention's output adds `self_attn.o_proj.bias`.
    pub output_bias: bool,
    /// gate, up and down add `mlp.{gate,up,down}_proj.bias`.
    pub mlp_bias: bool,
    /// Every head of q and of k goes through an RMSNorm of `head_dim` weights (`self_attn.{q,k}_norm.weight`) before it is
    /// turned.
    pub qk_norm: bool,
    /// The head is the embedding matrix; there is no `lm_head.weight`.
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// All ids that end a text, without duplicates.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

impl DecoderConfig {
    /// The sliding window of a layer: a token at position `p` attends to `p - window + 1 ..= p`. `None`: to everything
    /// before it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| layer >= self.first_window_layer)
    }
}
