//! Small models, and the steps that an engine would send for them.

use std::sync::Arc;

use trireme_llm::checkpoint::{DecoderConfig, RopeScaling, WeightType};
use trireme_llm::executor::{
    Admission, BlockId, BlockTableChange, DecodeRow, PrefillChunk, Slot, SlotSampling, StepDiff,
};
use trireme_tensorrtllm::{CudaError, CudaExecutor, Options, Source};

/// Two layers of grouped heads.
pub(crate) fn config() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 320,
        hidden_size: 256,
        intermediate_size: 512,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 1024,
        sliding_window: None,
        first_window_layer: 0,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    }
}

/// Few slots and little memory, every launch by itself, nothing timed.
pub(crate) fn options() -> Options {
    Options {
        max_slots: 160,
        max_step_tokens: 512,
        max_context: Some(256),
        graphs: false,
        tune: false,
        ..Options::default()
    }
}

pub(crate) fn load(config: &DecoderConfig, options: &Options) -> Result<CudaExecutor, CudaError> {
    CudaExecutor::load(config, &Source::Dummy(WeightType::BF16), options)
}

/// A sequence moves into a slot and gets a block.
pub(crate) fn admit(step: &mut StepDiff, slot: u32) {
    step.admitted.push(Admission {
        slot: Slot(slot),
        sampling: Arc::new(SlotSampling::default()),
        prompt: Arc::new([1, 2, 3]),
        generated: Arc::new([]),
    });
    step.blocks.push(BlockTableChange {
        slot: Slot(slot),
        first: 0,
        blocks: (0..5).map(|i| BlockId((slot * 5 + i) % 300)).collect(),
    });
}

/// A step in which so many new sequences have a token decoded.
pub(crate) fn decode(rows: u32) -> StepDiff {
    let mut step = StepDiff::default();
    for slot in 0..rows {
        admit(&mut step, slot);
        step.decode.push(DecodeRow { slot: Slot(slot), position: 3, sample: 0 });
    }
    step
}

/// The end of all its sequences.
pub(crate) fn free(step: &StepDiff) -> StepDiff {
    StepDiff { freed: step.admitted.iter().map(|a| a.slot).collect(), ..StepDiff::default() }
}

/// A prompt of so many tokens in a slot of its own.
pub(crate) fn prefill(step: &mut StepDiff, slot: u32, tokens: u32, sample: Option<u32>) {
    admit(step, slot);
    let tokens = (0..tokens).map(|i| i % 300).collect();
    step.prefill.push(PrefillChunk { slot: Slot(slot), start: 0, tokens, sample, context_logits: false });
}
