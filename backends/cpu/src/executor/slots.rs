//! What a slot remembers of its sequence besides keys and values.

use std::sync::Arc;

use trireme_llm::executor::{Admission, Sampled, Slot, SlotSampling, TokenMask};
use trireme_llm::sampling::{Row, Sampler};

/// A sequence as sampling sees it.
pub(super) struct SlotState {
    slot: Slot,
    sampling: Arc<SlotSampling>,
    sampler: Sampler,
    prompt: Arc<[u32]>,
    generated: Vec<u32>,
}

impl SlotState {
    pub(super) fn new(admission: &Admission) -> Self {
        Self {
            slot: admission.slot,
            sampling: Arc::clone(&admission.sampling),
            sampler: Sampler::new(),
            prompt: Arc::clone(&admission.prompt),
            generated: admission.generated.to_vec(),
        }
    }

    /// The token that was sampled last: what a decode row reads.
    pub(super) fn last(&self) -> Option<u32> {
        self.generated.last().copied()
    }

    /// Chooses the next token, number `index` of the generated ones. The rules of the slot change the logits.
    pub(super) fn sample(&mut self, logits: &mut [f32], index: u32, mask: Option<&TokenMask>) -> Sampled {
        let row = Row {
            prompt: &self.prompt,
            generated: &self.generated,
            mask: mask.map(|mask| &*mask.words),
            sample: index,
        };
        let Some(choice) = self.sampler.choose(logits, &self.sampling, &row) else {
            return Sampled { slot: self.slot, token: None, logprob: None, top: Vec::new() };
        };
        self.generated.push(choice.token);
        Sampled { slot: self.slot, token: Some(choice.token), logprob: choice.logprob, top: choice.top }
    }
}
