//! An executor whose next token is a hash of all that it really read: a wrong block, a stale one, a wrong position or a
//! wrong reuse changes the answer.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trireme_llm::executor::{
    Executor, ExecutorError, ExecutorInfo, KvLayout, Ledger, Sampled, Slot, SlotSampling, StepDiff, StepId,
    StepOutput,
};
use trireme_llm::sampling::{Row, Sampler};

pub const VOCAB: usize = 40;
pub const BLOCK: usize = 4;
pub const CONTEXT: usize = 48;

struct State {
    sampling: Arc<SlotSampling>,
    prompt: Arc<[u32]>,
    generated: Vec<u32>,
}

/// A made-up model. With two steps in flight a step is computed only when it is waited for.
pub struct Stub {
    pub info: ExecutorInfo,
    ledger: Ledger,
    /// What each position of each block holds.
    memory: Vec<u64>,
    slots: BTreeMap<Slot, State>,
    queue: VecDeque<(StepId, StepDiff)>,
    /// The step that comes next.
    pub next: u64,
}

fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (x >> 32)
}

impl Stub {
    pub fn new(shape: Shape) -> Self {
        Self::with_context(shape, CONTEXT)
    }

    pub fn with_context(shape: Shape, max_context: usize) -> Self {
        let info = ExecutorInfo {
            vocab_size: VOCAB,
            max_context,
            max_slots: shape.slots,
            max_step_tokens: shape.budget,
            max_steps_in_flight: shape.depth,
            kv: KvLayout { block_tokens: BLOCK, num_blocks: shape.blocks, block_bytes: 1, dtype: "float32" },
        };
        Self {
            ledger: Ledger::new(&info),
            memory: vec![0; shape.blocks * BLOCK],
            slots: BTreeMap::new(),
            queue: VecDeque::new(),
            next: 0,
            info,
        }
    }

    /// Reads all positions before, writes this one, and gives what the row's logits are made of.
    fn row(&mut self, slot: Slot, position: usize, token: u32) -> u64 {
        let table = self.ledger.table(slot);
        let at = |p: usize| table[p / BLOCK].0 as usize * BLOCK + p % BLOCK;
        let read = (0..position).fold(7, |h, p| mix(h, self.memory[at(p)]));
        let value = mix(mix(read, u64::from(token)), position as u64);
        let place = at(position);
        self.memory[place] = value;
        value
    }

    fn compute(&mut self, id: StepId, step: &StepDiff) -> Result<StepOutput, ExecutorError> {
        self.ledger.apply(step)?;
        for slot in &step.freed {
            self.slots.remove(slot);
        }
        for admission in &step.admitted {
            let state = State {
                sampling: admission.sampling.clone(),
                prompt: admission.prompt.clone(),
                generated: admission.generated.to_vec(),
            };
            self.slots.insert(admission.slot, state);
        }
        let mut rows = Vec::new();
        for chunk in &step.prefill {
            let mut last = 0;
            for (position, token) in (chunk.start as usize..).zip(&chunk.tokens) {
                last = self.row(chunk.slot, position, *token);
            }
            rows.extend(chunk.sample.map(|sample| (chunk.slot, last, sample)));
        }
        for row in &step.decode {
            let token = *self.slots[&row.slot].generated.last().unwrap();
            rows.push((row.slot, self.row(row.slot, row.position as usize, token), row.sample));
        }
        let sampled = rows.into_iter().map(|(slot, value, sample)| {
            let state = self.slots.get_mut(&slot).unwrap();
            let mut logits: Vec<f32> =
                (0..VOCAB as u64).map(|t| (mix(value, t) >> 40) as f32 / (1 << 21) as f32).collect();
            let mask = step.masks.iter().find(|mask| mask.slot == slot).map(|mask| &*mask.words);
            let row = Row { prompt: &state.prompt, generated: &state.generated, mask, sample };
            let choice = Sampler::new().choose(&mut logits, &state.sampling, &row).unwrap();
            assert_eq!(state.generated.len(), sample as usize);
            state.generated.push(choice.token);
            Sampled { slot, token: Some(choice.token), logprob: choice.logprob, top: choice.top }
        });
        Ok(StepOutput { id, sampled: sampled.collect(), context_logits: Vec::new() })
    }
}

impl Executor for Stub {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }
    fn submit(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        assert!(self.queue.len() < self.info.max_steps_in_flight);
        let id = StepId(self.next);
        self.next += 1;
        self.queue.push_back((id, step.clone()));
        Ok(id)
    }
    fn poll(&mut self, _: StepId) -> Result<Option<StepOutput>, ExecutorError> {
        Ok(None)
    }
    fn wait(&mut self, id: StepId) -> Result<StepOutput, ExecutorError> {
        let (first, step) = self.queue.pop_front().unwrap();
        assert_eq!(first, id);
        self.compute(id, &step)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub slots: usize,
    pub budget: usize,
    pub blocks: usize,
    pub depth: usize,
}
