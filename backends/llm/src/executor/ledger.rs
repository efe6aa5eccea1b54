//! The book that an executor keeps of its slots, and with it the rules of the waist.

use super::{Admission, BlockId, BlockTableChange, ExecutorError, ExecutorInfo, Slot, StepDiff};

/// Which slots are taken, the blocks that they hold, and how far they have come.
///
/// Every executor sends its steps through [`Ledger::apply`], so that all of them refuse the same ones.
#[derive(Clone, Debug)]
pub struct Ledger {
    vocab_size: usize,
    max_context: usize,
    max_step_tokens: usize,
    block_tokens: usize,
    slots: Vec<Option<Entry>>,
    /// How many tables each block is in.
    holders: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    table: Vec<BlockId>,
    /// The position after the last row. Where the first row is, only the engine knows: blocks may be reused.
    next: Option<u32>,
    /// Index of the token that is sampled next.
    next_sample: u32,
    /// Has the slot sampled a token that a decode row can read?
    has_token: bool,
}

impl Ledger {
    /// An empty book for an executor.
    pub fn new(info: &ExecutorInfo) -> Self {
        Self {
            vocab_size: info.vocab_size,
            max_context: info.max_context,
            max_step_tokens: info.max_step_tokens,
            block_tokens: info.kv.block_tokens,
            slots: vec![None; info.max_slots],
            holders: vec![0; info.kv.num_blocks],
        }
    }

    /// The blocks of a slot, in the order of positions. Empty if nobody has the slot.
    pub fn table(&self, slot: Slot) -> &[BlockId] {
        self.slots.get(slot.0 as usize).and_then(Option::as_ref).map_or(&[], |entry| &entry.table)
    }

    /// Enters what a step changes.
    ///
    /// # Errors
    /// [`ExecutorError::Rules`] says which rule the step breaks. Nothing has changed then.
    pub fn apply(&mut self, step: &StepDiff) -> Result<(), ExecutorError> {
        let mut draft = self.clone();
        draft.enter(step).map_err(ExecutorError::Rules)?;
        *self = draft;
        Ok(())
    }

    fn enter(&mut self, step: &StepDiff) -> Result<(), String> {
        step.freed.iter().try_for_each(|slot| self.free(*slot))?;
        step.admitted.iter().try_for_each(|admission| self.admit(admission))?;
        step.blocks.iter().try_for_each(|change| self.extend(change))?;
        if step.rows() > self.max_step_tokens {
            return Err(format!("{} rows in a step of at most {}", step.rows(), self.max_step_tokens));
        }
        let mut samples = vec![false; self.slots.len()];
        let mut ran = vec![false; self.slots.len()];
        let mut once = |slot: Slot| match ran.get_mut(slot.0 as usize) {
            Some(ran) if *ran => Err(format!("slot {} runs twice in a step", slot.0)),
            Some(ran) => {
                *ran = true;
                Ok(())
            }
            None => Err(format!("slot {} does not exist", slot.0)),
        };
        for chunk in &step.prefill {
            once(chunk.slot)?;
            let vocab = self.vocab_size;
            if let Some(id) = chunk.tokens.iter().find(|&&id| id as usize >= vocab) {
                return Err(format!("token id {id} is outside the vocabulary of {vocab}"));
            }
            self.run(chunk.slot, chunk.start, chunk.tokens.len(), chunk.sample)?;
            samples[chunk.slot.0 as usize] = chunk.sample.is_some();
        }
        for row in &step.decode {
            once(row.slot)?;
            if !self.entry(row.slot)?.has_token {
                return Err(format!("slot {} decodes before it has sampled a token", row.slot.0));
            }
            self.run(row.slot, row.position, 1, Some(row.sample))?;
            samples[row.slot.0 as usize] = true;
        }
        for mask in &step.masks {
            if !samples.get(mask.slot.0 as usize).is_some_and(|samples| *samples) {
                return Err(format!("a mask for slot {}, which samples nothing", mask.slot.0));
            }
            let (words, wanted) = (mask.words.len(), self.vocab_size.div_ceil(32));
            if words != wanted {
                return Err(format!("a mask of {words} words, {wanted} are needed"));
            }
        }
        Ok(())
    }

    fn entry(&mut self, slot: Slot) -> Result<&mut Entry, String> {
        let entry = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        entry.ok_or_else(|| format!("nobody has slot {}", slot.0))
    }

    fn free(&mut self, slot: Slot) -> Result<(), String> {
        let table = std::mem::take(&mut self.entry(slot)?.table);
        self.slots[slot.0 as usize] = None;
        for block in table {
            self.holders[block.0 as usize] -= 1;
        }
        Ok(())
    }

    fn admit(&mut self, admission: &Admission) -> Result<(), String> {
        let slot = admission.slot.0;
        match self.slots.get_mut(slot as usize) {
            None => Err(format!("slot {slot} does not exist")),
            Some(Some(_)) => Err(format!("slot {slot} is taken")),
            Some(place) => {
                let next_sample = u32::try_from(admission.generated.len())
                    .map_err(|_| "more generated tokens than a number can count".to_owned())?;
                *place = Some(Entry { table: Vec::new(), next: None, next_sample, has_token: false });
                Ok(())
            }
        }
    }

    fn extend(&mut self, change: &BlockTableChange) -> Result<(), String> {
        let blocks = self.holders.len();
        if let Some(block) = change.blocks.iter().find(|block| block.0 as usize >= blocks) {
            return Err(format!("block {} of {blocks}", block.0));
        }
        let entry = self.entry(change.slot)?;
        if entry.table.len() != change.first as usize {
            let (first, is) = (change.first, entry.table.len());
            return Err(format!("blocks from {first} on for slot {}, which has {is}", change.slot.0));
        }
        entry.table.extend_from_slice(&change.blocks);
        for block in &change.blocks {
            self.holders[block.0 as usize] += 1;
        }
        Ok(())
    }

    /// `rows` tokens at the positions from `start` on.
    fn run(&mut self, slot: Slot, start: u32, rows: usize, sample: Option<u32>) -> Result<(), String> {
        let (tokens, max_context) = (self.block_tokens, self.max_context);
        let entry = self.entry(slot)?;
        let slot = slot.0;
        if rows == 0 {
            return Err(format!("a chunk without tokens for slot {slot}"));
        }
        if let Some(next) = entry.next.filter(|next| *next != start) {
            return Err(format!("slot {slot} goes on at position {start} after {next} positions"));
        }
        let end = start as usize + rows;
        if end > max_context || end > entry.table.len().saturating_mul(tokens) {
            return Err(format!(
                "slot {slot} reaches position {end}; it has {} blocks of {tokens}, the context is {max_context}",
                entry.table.len()
            ));
        }
        if let Some(sample) = sample {
            if sample != entry.next_sample {
                return Err(format!("slot {slot} samples token {sample} as its {}th", entry.next_sample));
            }
            entry.next_sample += 1;
            entry.has_token = true;
        }
        entry.next = Some(end as u32);
        let written = &self.table(Slot(slot))[start as usize / tokens..end.div_ceil(tokens)];
        match written.iter().find(|block| self.holders[block.0 as usize] != 1) {
            Some(block) => Err(format!("slot {slot} writes into block {}, which others share", block.0)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{DecodeRow, KvLayout, PrefillChunk, SlotSampling, TokenMask};
    use super::*;
    use std::sync::Arc;

    fn info() -> ExecutorInfo {
        ExecutorInfo {
            vocab_size: 100,
            max_context: 20,
            max_slots: 2,
            max_step_tokens: 8,
            max_steps_in_flight: 1,
            kv: KvLayout { block_tokens: 4, num_blocks: 6, block_bytes: 1, dtype: "float32" },
        }
    }

    fn admit(slot: u32) -> Admission {
        let sampling = Arc::new(SlotSampling::default());
        Admission { slot: Slot(slot), sampling, prompt: Arc::new([1, 2, 3]), generated: Arc::new([]) }
    }

    fn blocks(slot: u32, first: u32, blocks: &[u32]) -> BlockTableChange {
        BlockTableChange { slot: Slot(slot), first, blocks: blocks.iter().map(|b| BlockId(*b)).collect() }
    }

    fn chunk(slot: u32, start: u32, tokens: usize, sample: Option<u32>) -> PrefillChunk {
        PrefillChunk { slot: Slot(slot), start, tokens: vec![1; tokens], sample, context_logits: false }
    }

    fn decode(slot: u32, position: u32, sample: u32) -> DecodeRow {
        DecodeRow { slot: Slot(slot), position, sample }
    }

    /// A sequence of five positions in slot 0 that has sampled a token.
    fn begun() -> Ledger {
        let mut ledger = Ledger::new(&info());
        let step = StepDiff {
            admitted: vec![admit(0)],
            blocks: vec![blocks(0, 0, &[3, 1])],
            prefill: vec![chunk(0, 0, 5, Some(0))],
            ..StepDiff::default()
        };
        ledger.apply(&step).unwrap();
        ledger
    }

    #[test]
    fn a_sequence_from_admission_to_its_end() {
        let mut ledger = begun();
        assert_eq!(ledger.table(Slot(0)), [BlockId(3), BlockId(1)]);
        let step = StepDiff { decode: vec![decode(0, 5, 1)], ..StepDiff::default() };
        ledger.apply(&step).unwrap();
        let step = StepDiff {
            freed: vec![Slot(0)],
            admitted: vec![admit(0)],
            blocks: vec![blocks(0, 0, &[1])],
            prefill: vec![chunk(0, 0, 2, None)],
            ..StepDiff::default()
        };
        ledger.apply(&step).unwrap();
        assert_eq!(ledger.table(Slot(0)), [BlockId(1)]);
        assert!(ledger.table(Slot(1)).is_empty());
    }

    #[test]
    fn each_rule_is_held() {
        let mask = |slot, words: usize| TokenMask { slot: Slot(slot), words: vec![0; words].into() };
        let prefill = |chunk| StepDiff { prefill: vec![chunk], ..StepDiff::default() };
        let decode_of = |row| StepDiff { decode: vec![row], ..StepDiff::default() };
        let second = |mut step: StepDiff| {
            step.admitted.push(admit(1));
            step
        };
        let cases = [
            (StepDiff { freed: vec![Slot(1)], ..StepDiff::default() }, "nobody has slot 1"),
            (StepDiff { admitted: vec![admit(0)], ..StepDiff::default() }, "slot 0 is taken"),
            (StepDiff { admitted: vec![admit(2)], ..StepDiff::default() }, "slot 2 does not exist"),
            (StepDiff { blocks: vec![blocks(0, 2, &[6])], ..StepDiff::default() }, "block 6 of 6"),
            (
                StepDiff { blocks: vec![blocks(0, 1, &[2])], ..StepDiff::default() },
                "blocks from 1 on for slot 0, which has 2",
            ),
            (prefill(chunk(0, 6, 1, None)), "slot 0 goes on at position 6 after 5 positions"),
            (prefill(chunk(0, 5, 0, None)), "a chunk without tokens for slot 0"),
            (
                prefill(chunk(0, 5, 4, None)),
                "slot 0 reaches position 9; it has 2 blocks of 4, the context is 20",
            ),
            (prefill(chunk(0, 5, 9, None)), "9 rows in a step of at most 8"),
            (prefill(chunk(1, 0, 1, None)), "nobody has slot 1"),
            (decode_of(decode(0, 5, 2)), "slot 0 samples token 2 as its 1th"),
            (second(decode_of(decode(1, 0, 0))), "slot 1 decodes before it has sampled a token"),
            (
                StepDiff { decode: vec![decode(0, 5, 1), decode(0, 6, 2)], ..StepDiff::default() },
                "slot 0 runs twice in a step",
            ),
            (
                StepDiff { masks: vec![mask(0, 4)], ..StepDiff::default() },
                "a mask for slot 0, which samples nothing",
            ),
            (
                StepDiff { masks: vec![mask(0, 3)], ..decode_of(decode(0, 5, 1)) },
                "a mask of 3 words, 4 are needed",
            ),
            (
                second(StepDiff { blocks: vec![blocks(1, 0, &[3, 1])], ..prefill(chunk(1, 4, 1, None)) }),
                "slot 1 writes into block 1, which others share",
            ),
        ];
        for (step, expected) in cases {
            let mut ledger = begun();
            let before = format!("{ledger:?}");
            let error = ledger.apply(&step).unwrap_err().to_string();
            assert_eq!(error, format!("the step breaks the executor's rules: {expected}"));
            assert_eq!(format!("{ledger:?}"), before);
        }
    }
}
