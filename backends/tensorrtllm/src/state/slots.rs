//! The host's copy of the slots: enough to hold the engine to the rules of the waist.

use trireme_llm::executor::{BlockTableChange, DecodeRow, ExecutorInfo, PrefillChunk, StepDiff};

/// What the host knows of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct SlotEntry {
    live: bool,
    blocks: usize,
    /// Whether log-probabilities are wanted.
    logprobs: bool,
}

/// All slots.
pub struct Slots {
    entries: Vec<SlotEntry>,
    block_tokens: usize,
    num_blocks: usize,
    vocab: usize,
    max_context: usize,
    max_step_tokens: usize,
}

impl Slots {
    pub fn new(info: &ExecutorInfo) -> Self {
        Self {
            entries: vec![SlotEntry::default(); info.max_slots],
            block_tokens: info.kv.block_tokens,
            num_blocks: info.kv.num_blocks,
            vocab: info.vocab_size,
            max_context: info.max_context,
            max_step_tokens: info.max_step_tokens,
        }
    }

    pub fn wants_logprobs(&self, slot: u32) -> bool {
        self.entries[slot as usize].logprobs
    }

    /// Takes a step's changes, or says which rule it breaks. Then the slots are in no defined state: the engine is at
    /// fault and stops.
    pub fn apply(&mut self, step: &StepDiff) -> Result<(), String> {
        if step.rows() > self.max_step_tokens {
            return Err(format!("{} rows, at most {} are allowed", step.rows(), self.max_step_tokens));
        }
        for slot in &step.freed {
            *self.entry(slot.0)? = SlotEntry::default();
        }
        for admission in &step.admitted {
            let ids = admission.prompt.iter().chain(&*admission.generated);
            let ids = ids.chain(&admission.sampling.end_ids);
            self.check_ids(ids.copied())?;
            self.check_ids(admission.sampling.logit_bias.iter().map(|(id, _)| *id))?;
            let logprobs = admission.sampling.logprobs.is_some();
            *self.entry(admission.slot.0)? = SlotEntry { live: true, blocks: 0, logprobs };
        }
        for change in &step.blocks {
            self.grow(change)?;
        }
        for mask in &step.masks {
            self.entry(mask.slot.0)?;
        }
        for chunk in &step.prefill {
            self.check_chunk(chunk)?;
        }
        for row in &step.decode {
            self.check_row(row)?;
        }
        Ok(())
    }

    fn entry(&mut self, slot: u32) -> Result<&mut SlotEntry, String> {
        let count = self.entries.len();
        self.entries.get_mut(slot as usize).ok_or_else(|| format!("slot {slot} of {count}"))
    }

    fn grow(&mut self, change: &BlockTableChange) -> Result<(), String> {
        if let Some(block) = change.blocks.iter().find(|b| b.0 as usize >= self.num_blocks) {
            return Err(format!("block {} of {}", block.0, self.num_blocks));
        }
        let most = self.max_context.div_ceil(self.block_tokens);
        let slot = change.slot.0;
        let entry = self.entry(slot)?;
        if !entry.live || entry.blocks != change.first as usize {
            return Err(format!("slot {slot}: {} blocks are there, not {}", entry.blocks, change.first));
        }
        entry.blocks += change.blocks.len();
        if entry.blocks > most {
            return Err(format!("slot {slot}: {} blocks, at most {most} fit", entry.blocks));
        }
        Ok(())
    }

    fn check_ids(&self, mut ids: impl Iterator<Item = u32>) -> Result<(), String> {
        match ids.find(|id| *id as usize >= self.vocab) {
            Some(id) => Err(format!("token {id} of {}", self.vocab)),
            None => Ok(()),
        }
    }

    fn check_chunk(&mut self, chunk: &PrefillChunk) -> Result<(), String> {
        if chunk.tokens.is_empty() {
            return Err(format!("slot {}: an empty chunk", chunk.slot.0));
        }
        self.check_ids(chunk.tokens.iter().copied())?;
        self.check_positions(chunk.slot.0, chunk.start as usize + chunk.tokens.len())
    }

    fn check_row(&mut self, row: &DecodeRow) -> Result<(), String> {
        self.check_positions(row.slot.0, row.position as usize + 1)
    }

    fn check_positions(&mut self, slot: u32, end: usize) -> Result<(), String> {
        let (block_tokens, max_context) = (self.block_tokens, self.max_context);
        let entry = self.entry(slot)?;
        let room = (entry.blocks * block_tokens).min(max_context);
        if !entry.live || end > room {
            return Err(format!("slot {slot}: position {} lies behind its {room}", end.saturating_sub(1)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trireme_llm::executor::{Admission, BlockId, KvLayout, Slot, SlotSampling};

    fn info() -> ExecutorInfo {
        let kv = KvLayout { block_tokens: 16, num_blocks: 10, block_bytes: 1, dtype: "bfloat16" };
        ExecutorInfo {
            vocab_size: 50,
            max_context: 64,
            max_slots: 2,
            max_step_tokens: 40,
            max_steps_in_flight: 2,
            kv,
        }
    }

    fn admitted() -> StepDiff {
        StepDiff {
            admitted: vec![Admission {
                slot: Slot(1),
                sampling: Arc::new(SlotSampling::default()),
                prompt: Arc::new([1, 2]),
                generated: Arc::new([]),
            }],
            blocks: vec![BlockTableChange { slot: Slot(1), first: 0, blocks: vec![BlockId(3)] }],
            ..StepDiff::default()
        }
    }

    #[test]
    fn steps_that_break_a_rule_are_named() {
        let chunk = |start, tokens: Vec<u32>| PrefillChunk {
            slot: Slot(1),
            start,
            tokens,
            sample: None,
            context_logits: false,
        };
        let cases = [
            (
                StepDiff { prefill: vec![chunk(15, vec![1, 2])], ..admitted() },
                "position 16 lies behind its 16",
            ),
            (StepDiff { prefill: vec![chunk(0, vec![50])], ..admitted() }, "token 50 of 50"),
            (StepDiff { prefill: vec![chunk(0, vec![1; 41])], ..admitted() }, "41 rows"),
            (StepDiff { freed: vec![Slot(2)], ..StepDiff::default() }, "slot 2 of 2"),
            (
                StepDiff {
                    decode: vec![DecodeRow { slot: Slot(0), position: 0, sample: 0 }],
                    ..StepDiff::default()
                },
                "slot 0: position 0",
            ),
        ];
        for (step, wanted) in cases {
            let error = Slots::new(&info()).apply(&step).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let good = StepDiff { prefill: vec![chunk(14, vec![1, 2])], ..admitted() };
        assert_eq!(Slots::new(&info()).apply(&good), Ok(()));
    }
}
