//! What a slot remembers of its sequence besides keys and values.

use std::sync::Arc;

use trireme_llm::executor::{Admission, Sampled, Slot, SlotSampling, TokenMask};
use trireme_llm::sampling::{Sampler, SamplingParams, SamplingRequest};

/// A sequence as sampling sees it.
pub(super) struct SlotState {
    slot: Slot,
    sampling: Arc<SlotSampling>,
    sampler: Sampler,
    last: Option<u32>,
}

impl SlotState {
    pub(super) fn new(admission: &Admission) -> Self {
        Self {
            slot: admission.slot,
            sampling: Arc::clone(&admission.sampling),
            sampler: Sampler::new(),
            last: None,
        }
    }

    /// The token that was sampled last: what a decode row reads.
    pub(super) fn last(&self) -> Option<u32> {
        self.last
    }

    /// Chooses the next token, number `index` of the generated ones.
    pub(super) fn sample(&mut self, logits: &[f32], index: u32, _mask: Option<&TokenMask>) -> Sampled {
        let s = &self.sampling;
        let params = SamplingParams::new(&SamplingRequest {
            temperature: Some(s.temperature),
            top_k: Some(i64::from(s.top_k)),
            top_p: Some(s.top_p),
            random_seed: Some(s.seed),
        })
        .unwrap_or_default();
        let token = self.sampler.sample(logits, &params, u64::from(index));
        self.last = token.or(self.last);
        Sampled { slot: self.slot, token, logprob: None, top: Vec::new() }
    }
}
