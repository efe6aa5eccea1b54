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

/// Small models, each with something of its own.
pub(crate) fn variants() -> Vec<(&'static str, DecoderConfig)> {
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max: 128 };
    vec![
        ("head 64", small()),
        (
            "head 128, 4 heads a group",
            DecoderConfig { head_dim: 128, num_heads: 4, num_kv_heads: 1, ..small() },
        ),
        ("head 80", DecoderConfig { head_dim: 80, num_heads: 4, num_kv_heads: 4, ..small() }),
        ("head 96, bias", DecoderConfig { head_dim: 96, qkv_bias: true, ..small() }),
        ("head 256", DecoderConfig { head_dim: 256, num_heads: 2, num_kv_heads: 1, ..small() }),
        (
            "12 heads a group, tied",
            DecoderConfig { num_heads: 12, num_kv_heads: 1, tie_word_embeddings: true, ..small() },
        ),
        ("head norms (qwen3)", DecoderConfig { head_dim: 128, qk_norm: true, ..small() }),
        ("window 100", DecoderConfig { sliding_window: Some(100), ..small() }),
        (
            "window 40 from layer 1",
            DecoderConfig { sliding_window: Some(40), first_window_layer: 1, ..small() },
        ),
        ("llama 3 scaling", DecoderConfig { rope_scaling: llama3, ..small() }),
        (
            "9 heads, 3 kv, odd sizes",
            DecoderConfig {
                hidden_size: 576,
                intermediate_size: 1536,
                num_heads: 9,
                num_kv_heads: 3,
                vocab_size: 1003,
                ..small()
            },
        ),
    ]
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
