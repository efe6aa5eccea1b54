//! A small engine that drives an executor at random: slots, blocks, chunks, shared prefixes, preemptions.

use std::sync::Arc;

use trireme_llm::executor::{
    Admission, BlockId, BlockTableChange, DecodeRow, Executor, PrefillChunk, Sampled, Slot, SlotSampling,
    StepDiff,
};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A text that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub prompt: Vec<u32>,
    /// Tokens to generate.
    pub tokens: usize,
    pub sampling: SlotSampling,
}

/// What came of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub sampled: Vec<Sampled>,
    /// Position and logits, for the rows of prompts.
    pub logits: Vec<(usize, Vec<f32>)>,
}

impl Answer {
    pub fn tokens(&self) -> Vec<u32> {
        self.sampled.iter().map(|s| s.token.expect("a token")).collect()
    }
}

/// How wildly the steps are made.
#[derive(Clone, Copy, Debug)]
pub struct Wildness {
    /// Largest chunk of a prompt.
    pub chunk: usize,
    /// A sequence sits a step out once in so many; 0 is never.
    pub idle: usize,
    /// A sequence is preempted once in so many steps, but three times at most, so that it comes to an end.
    pub preempt: usize,
    pub share: bool,
    pub context_logits: bool,
}

/// One after another, whole prompts.
pub const TAME: Wildness =
    Wildness { chunk: usize::MAX, idle: 0, preempt: 0, share: false, context_logits: true };

struct Sequence<'a> {
    wanted: &'a Wanted,
    answer: Answer,
    slot: Option<Slot>,
    table: Vec<BlockId>,
    /// Positions that are written, and those that were so before this step.
    read: usize,
    settled: usize,
    /// Has it sampled since it was admitted?
    has_token: bool,
    preemptions: usize,
}

impl Sequence<'_> {
    fn known(&self) -> Vec<u32> {
        let mut all = self.wanted.prompt.clone();
        all.extend(self.answer.tokens());
        all
    }

    fn is_done(&self) -> bool {
        self.answer.sampled.len() == self.wanted.tokens
    }
}

/// Blocks with their number of holders.
struct Blocks {
    free: Vec<BlockId>,
    holders: Vec<usize>,
}

impl Blocks {
    fn take(&mut self, random: &mut Random) -> Option<BlockId> {
        if self.free.is_empty() {
            return None;
        }
        let block = self.free.swap_remove(random.below(self.free.len()));
        self.holders[block.0 as usize] = 1;
        Some(block)
    }

    fn release(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..) {
            let holders = &mut self.holders[block.0 as usize];
            *holders -= 1;
            if *holders == 0 {
                self.free.push(block);
            }
        }
    }
}

/// Drives `executor` until all texts are there.
pub fn drive(executor: &mut impl Executor, wanted: &[Wanted], wild: Wildness, seed: u64) -> Vec<Answer> {
    let info = executor.info().clone();
    let mut random = Random(seed);
    let mut blocks = Blocks {
        free: (0..info.kv.num_blocks as u32).map(BlockId).collect(),
        holders: vec![0; info.kv.num_blocks],
    };
    let mut sequences: Vec<Sequence<'_>> = wanted
        .iter()
        .map(|wanted| Sequence {
            wanted,
            answer: Answer::default(),
            slot: None,
            table: Vec::new(),
            read: 0,
            settled: 0,
            has_token: false,
            preemptions: 0,
        })
        .collect();
    let mut slots: Vec<Slot> = (0..info.max_slots as u32).map(Slot).collect();
    let mut ended: Vec<Slot> = Vec::new();
    while !sequences.iter().all(Sequence::is_done) {
        let mut step = StepDiff { freed: std::mem::take(&mut ended), ..StepDiff::default() };
        slots.extend(&step.freed);
        let mut budget = info.max_step_tokens;
        for i in 0..sequences.len() {
            let preempted = wild.preempt > 0 && random.once_in(wild.preempt);
            let idle = wild.idle > 0 && random.once_in(wild.idle);
            if sequences[i].is_done() || budget == 0 {
                continue;
            }
            if let (true, Some(slot)) = (preempted && sequences[i].preemptions < 3, sequences[i].slot) {
                sequences[i].preemptions += 1;
                sequences[i].slot = None;
                (sequences[i].read, sequences[i].settled) = (0, 0);
                blocks.release(&mut sequences[i].table);
                step.freed.push(slot);
                // The slot and the blocks may be somebody else's in this very step.
                slots.push(slot);
                continue;
            }
            if idle {
                continue;
            }
            if sequences[i].slot.is_none() {
                if slots.is_empty() {
                    continue;
                }
                let slot = slots.swap_remove(random.below(slots.len()));
                let shared = if wild.share { shared(&sequences, i, info.kv.block_tokens) } else { vec![] };
                for block in &shared {
                    blocks.holders[block.0 as usize] += 1;
                }
                let sequence = &mut sequences[i];
                sequence.slot = Some(slot);
                sequence.has_token = false;
                sequence.read = shared.len() * info.kv.block_tokens;
                if !shared.is_empty() {
                    step.blocks.push(BlockTableChange { slot, first: 0, blocks: shared.clone() });
                }
                sequence.table = shared;
                step.admitted.push(Admission {
                    slot,
                    sampling: Arc::new(sequence.wanted.sampling.clone()),
                    prompt: sequence.wanted.prompt.as_slice().into(),
                    generated: sequence.answer.tokens().into(),
                });
            }
            let sequence = &mut sequences[i];
            let slot = sequence.slot.expect("a slot");
            let known = sequence.known();
            let decodes = sequence.has_token && sequence.read + 1 == known.len();
            let most = (known.len() - sequence.read).min(budget).min(wild.chunk);
            let mut rows = if wild.chunk == usize::MAX { most } else { 1 + random.below(most) };
            // As far as blocks go; who gets none waits for others to end.
            let first = sequence.table.len();
            while sequence.table.len() * info.kv.block_tokens < sequence.read + rows {
                let Some(block) = blocks.take(&mut random) else { break };
                sequence.table.push(block);
            }
            rows = rows.min(sequence.table.len() * info.kv.block_tokens - sequence.read);
            let new = sequence.table[first..].to_vec();
            if !new.is_empty() {
                step.blocks.push(BlockTableChange { slot, first: first as u32, blocks: new });
            }
            if rows == 0 {
                continue;
            }
            budget -= rows;
            let sample = sequence.answer.sampled.len() as u32;
            if decodes {
                step.decode.push(DecodeRow { slot, position: sequence.read as u32, sample });
            } else {
                step.prefill.push(PrefillChunk {
                    slot,
                    start: sequence.read as u32,
                    tokens: known[sequence.read..sequence.read + rows].to_vec(),
                    sample: (sequence.read + rows == known.len()).then_some(sample),
                    context_logits: wild.context_logits,
                });
            }
            sequence.read += rows;
        }
        let id = executor.submit(&step).expect("a step by the rules");
        let output = executor.wait(id).expect("its output");
        sequences.iter_mut().for_each(|s| s.settled = s.read);
        let mut logits = output.context_logits.into_iter();
        for chunk in step.prefill.iter().filter(|c| c.context_logits) {
            let (slot, rows) = logits.next().expect("logits of each chunk");
            assert_eq!(slot, chunk.slot);
            let sequence = sequences.iter_mut().find(|s| s.slot == Some(slot)).expect("its sequence");
            let rows = rows.chunks_exact(info.vocab_size).zip(chunk.start as usize..);
            sequence.answer.logits.extend(rows.map(|(row, position)| (position, row.to_vec())));
        }
        for mut sampled in output.sampled {
            let sequence = sequences.iter_mut().find(|s| s.slot == Some(sampled.slot)).expect("its sequence");
            sampled.slot = Slot(0);
            sequence.has_token = true;
            sequence.answer.sampled.push(sampled);
            if sequence.is_done() {
                ended.extend(sequence.slot.take());
                blocks.release(&mut sequence.table);
            }
        }
    }
    executor
        .submit(&StepDiff { freed: ended, ..StepDiff::default() })
        .and_then(|id| executor.wait(id))
        .expect("free");
    assert!(blocks.holders.iter().all(|n| *n == 0), "all blocks are free");
    sequences.into_iter().map(|s| s.answer).collect()
}

/// Full blocks of others that begin as the sequence does, but for its last token, which must run.
fn shared(sequences: &[Sequence<'_>], i: usize, block_tokens: usize) -> Vec<BlockId> {
    let known = sequences[i].known();
    let common = |other: &Sequence<'_>| {
        let same = other.known().iter().zip(&known).take_while(|(a, b)| a == b).count();
        same.min(other.settled).min(known.len() - 1) / block_tokens
    };
    let others = sequences.iter().enumerate().filter(|(j, other)| *j != i && other.slot.is_some());
    others.map(|(_, other)| other.table[..common(other)].to_vec()).max_by_key(Vec::len).unwrap_or_default()
}
