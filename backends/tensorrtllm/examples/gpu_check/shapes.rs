//! The models that are checked and measured.

use trireme_llm::checkpoint::{DecoderConfig, RopeScaling};

pub(crate) fn small() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 1000,
        hidden_size: 256,
        intermediate_size: 512,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 1024,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: false,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    }
}

pub(crate) fn llama_8b() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_layers: 32,
        num_heads: 32,
        num_kv_heads: 8,
        head_dim: 128,
        rope_theta: 500_000.0,
        max_position_embeddings: 131_072,
        ..small()
    }
}

pub(crate) fn llama_1b() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 128_256,
        hidden_size: 2048,
        intermediate_size: 8192,
        num_layers: 16,
        num_heads: 32,
        num_kv_heads: 8,
        head_dim: 64,
        rope_theta: 500_000.0,
        max_position_embeddings: 131_072,
        tie_word_embeddings: true,
        ..small()
    }
}
