//! Steps that were started, and what comes of them.

use std::collections::VecDeque;

use trireme_llm::executor::{Sampled, Slot, StepId, StepOutput, TokenLogprob};

use crate::device::{Device, Event, Pinned};
use crate::error::Result;
use crate::state::Choice;

/// Steps that may be in flight, and result arrays: one more, so that none is written while it is read.
pub(super) const IN_FLIGHT: usize = 2;
pub(super) const RING: usize = 4;

/// A step on its way.
pub(super) struct Pending {
    pub(super) id: StepId,
    pub(super) sampled: Vec<(Slot, bool)>,
    pub(super) context_logits: Vec<(Slot, Vec<f32>)>,
}

/// Results in the host's memory, and the steps that will be there.
pub(super) struct Results {
    memory: Pinned,
    events: Vec<Event>,
    pub(super) pending: VecDeque<Pending>,
    max_samples: usize,
}

impl Results {
    pub(super) fn new(device: &Device, max_samples: usize) -> Result<Self> {
        let memory = Pinned::new(device, RING * max_samples * size_of::<Choice>())?;
        let events = (0..RING).map(|_| Event::new(device)).collect::<Result<_>>()?;
        Ok(Self { memory, events, pending: VecDeque::new(), max_samples })
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes().len()
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }

    pub(super) fn event(&self, id: StepId) -> &Event {
        &self.events[id.0 as usize % RING]
    }

    /// The step's output, read from the array of its number as the device counts it.
    pub(super) fn read(&self, step: Pending, device_step: u64) -> StepOutput {
        let base = device_step as usize % RING * self.max_samples;
        let read = |(i, (slot, logprobs)): (usize, &(Slot, bool))| {
            let choice = Choice::read(self.memory.bytes(), base + i);
            let token = u32::try_from(choice.token).ok();
            let wanted = *logprobs && token.is_some();
            let top = if wanted { usize::try_from(choice.top_count).unwrap_or(0) } else { 0 };
            let pairs = choice.top_id.iter().zip(&choice.top_logprob).take(top);
            Sampled {
                slot: *slot,
                token,
                logprob: wanted.then_some(choice.logprob),
                top: pairs
                    .map(|(id, logprob)| TokenLogprob { token: *id as u32, logprob: *logprob })
                    .collect(),
            }
        };
        let sampled = step.sampled.iter().enumerate().map(read).collect();
        StepOutput { id: step.id, sampled, context_logits: step.context_logits }
    }
}
