//! The smallest engine: sequences with slots and blocks, prompts in pieces, two steps in flight.

use std::sync::Arc;

use trireme_llm::executor::{
    Admission, BlockId, BlockTableChange, DecodeRow, Executor, PrefillChunk, Slot, SlotSampling, StepDiff,
    StepId, StepOutput,
};
use trireme_tensorrtllm::CudaExecutor;

use crate::random::Random;

pub(crate) struct Driver {
    pub(crate) executor: CudaExecutor,
    sequences: Vec<Sequence>,
    free: Vec<u32>,
    in_flight: Vec<StepId>,
    /// Changes that travel with the next step.
    pending: StepDiff,
}

#[derive(Default)]
struct Sequence {
    blocks: Vec<u32>,
    /// Of those, the first ones that belong to another sequence.
    shared: usize,
    length: usize,
    samples: u32,
}

impl Driver {
    pub(crate) fn new(executor: CudaExecutor) -> Self {
        let slots = executor.info().max_slots;
        // Scattered, so that tables are no ascending lists.
        let mut free: Vec<u32> = (0..executor.info().kv.num_blocks as u32).collect();
        let mut random = Random(1);
        for i in (1..free.len()).rev() {
            free.swap(i, random.below(i + 1));
        }
        let sequences = (0..slots).map(|_| Sequence::default()).collect();
        Self { executor, sequences, free, in_flight: Vec::new(), pending: StepDiff::default() }
    }

    pub(crate) fn admit(&mut self, slot: u32, prompt: &[u32], sampling: SlotSampling) {
        self.pending.admitted.push(Admission {
            slot: Slot(slot),
            sampling: Arc::new(sampling),
            prompt: prompt.into(),
            generated: Arc::new([]),
        });
    }

    pub(crate) fn free(&mut self, slot: u32) {
        let sequence = std::mem::take(&mut self.sequences[slot as usize]);
        self.free.extend(&sequence.blocks[sequence.shared..]);
        self.pending.freed.push(Slot(slot));
    }

    fn grow(&mut self, slot: u32, length: usize) {
        let block_tokens = self.executor.info().kv.block_tokens;
        let sequence = &mut self.sequences[slot as usize];
        let first = sequence.blocks.len();
        let wanted = length.div_ceil(block_tokens);
        if wanted > first {
            let at = self.free.len().checked_sub(wanted - first).expect("blocks for what the check asks");
            let new = self.free.split_off(at);
            sequence.blocks.extend(&new);
            let blocks = new.into_iter().map(BlockId).collect();
            self.pending.blocks.push(BlockTableChange { slot: Slot(slot), first: first as u32, blocks });
        }
        sequence.length = length;
    }

    /// Slot `to` begins with the first `blocks` blocks of slot `from`.
    pub(crate) fn share(&mut self, from: u32, to: u32, blocks: usize) {
        let list = self.sequences[from as usize].blocks[..blocks].to_vec();
        let length = blocks * self.executor.info().kv.block_tokens;
        let ids = list.iter().map(|b| BlockId(*b)).collect();
        self.pending.blocks.push(BlockTableChange { slot: Slot(to), first: 0, blocks: ids });
        self.sequences[to as usize] = Sequence { blocks: list, shared: blocks, length, samples: 0 };
    }

    /// Tokens of a prompt behind what was read; `last` samples.
    pub(crate) fn chunk(&mut self, slot: u32, tokens: &[u32], last: bool, context_logits: bool) {
        let start = self.sequences[slot as usize].length;
        self.grow(slot, start + tokens.len());
        let sample = last.then_some(0);
        self.sequences[slot as usize].samples = u32::from(last);
        self.pending.prefill.push(PrefillChunk {
            slot: Slot(slot),
            start: start as u32,
            tokens: tokens.to_vec(),
            sample,
            context_logits,
        });
    }

    pub(crate) fn decode(&mut self, slots: &[u32]) {
        for &slot in slots {
            let position = self.sequences[slot as usize].length;
            self.grow(slot, position + 1);
            let sequence = &mut self.sequences[slot as usize];
            self.pending.decode.push(DecodeRow {
                slot: Slot(slot),
                position: position as u32,
                sample: sequence.samples,
            });
            sequence.samples += 1;
        }
    }

    /// Starts the step that was put together; gives the oldest one's output where two are on their way.
    pub(crate) fn submit(&mut self) -> Option<StepOutput> {
        let step = std::mem::take(&mut self.pending);
        let out = (self.in_flight.len() == 2).then(|| self.wait());
        self.in_flight.push(self.executor.submit(&step).expect("submit"));
        out
    }

    pub(crate) fn wait(&mut self) -> StepOutput {
        let id = self.in_flight.remove(0);
        self.executor.wait(id).expect("wait")
    }

    pub(crate) fn drain(&mut self) -> Vec<StepOutput> {
        (0..self.in_flight.len()).map(|_| self.wait()).collect()
    }

    /// The step that was put together, without running it.
    pub(crate) fn take(&mut self) -> StepDiff {
        std::mem::take(&mut self.pending)
    }

    pub(crate) fn blocks(&self, slot: u32) -> &[u32] {
        &self.sequences[slot as usize].blocks
    }

    /// Runs what was freed without any rows.
    pub(crate) fn forget(&mut self) {
        self.submit();
        self.drain();
    }

    /// Runs the step alone.
    pub(crate) fn step(&mut self) -> StepOutput {
        assert!(self.in_flight.is_empty());
        self.submit();
        self.wait()
    }
}
