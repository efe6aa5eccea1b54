//! The CPU behind the engine's waist: packed steps over paged keys and values.

mod options;
mod slots;

use std::collections::VecDeque;
use std::sync::Arc;

use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::executor::{
    Executor, ExecutorError, ExecutorInfo, KvLayout, Ledger, MemoryUse, Sampled, Slot, StepDiff, StepId,
    StepOutput, TokenMask,
};

use crate::decoder::{LlamaModel, LogitsWanted, Segment};
use crate::error::EngineError;
use crate::kv::{BLOCK_TOKENS, KvPool};
use crate::shared::SharedMut;
use slots::SlotState;

pub use options::{ExecutorOptions, KvCapacity};

/// Runs the steps of one decoder. All rows of a step go through the layers together, so that weights are read once;
/// what a row gives depends on its own sequence only, to the last bit.
pub struct CpuExecutor {
    info: ExecutorInfo,
    model: LlamaModel,
    kv: KvPool,
    ledger: Ledger,
    slots: Vec<Option<SlotState>>,
    next: u64,
    done: VecDeque<StepOutput>,
}

impl CpuExecutor {
    /// Loads the decoder of `checkpoint` and the memory for its keys and values.
    ///
    /// # Errors
    /// If the checkpoint cannot be run, or the memory cannot be had.
    pub fn load(checkpoint: &Checkpoint, options: ExecutorOptions) -> Result<Self, EngineError> {
        Self::new(LlamaModel::load(checkpoint, options.model)?, options)
    }

    /// An executor of a loaded model, with which it shares weights and threads.
    ///
    /// # Errors
    /// If a size is zero, or the memory cannot be had.
    pub fn new(model: LlamaModel, options: ExecutorOptions) -> Result<Self, EngineError> {
        let config = |text: String| Err(EngineError::Config(text));
        let (shape, trained) = (model.kv_shape(), model.config().max_position_embeddings);
        let max_context = options.max_context.unwrap_or(trained);
        if max_context == 0 || max_context > trained {
            return config(format!("a context of {max_context} tokens, the model was trained for {trained}"));
        }
        if options.max_slots == 0 || options.max_step_tokens == 0 {
            return config("an executor needs at least one slot and one row a step".to_owned());
        }
        let (_, block_bytes) = model.kv_block()?;
        let num_blocks = options.kv.blocks(block_bytes);
        if num_blocks == 0 || u32::try_from(num_blocks).is_err() {
            return config(format!(
                "{:?} make {num_blocks} blocks of {block_bytes} bytes, at least one is needed",
                options.kv
            ));
        }
        let mut kv = KvPool::new(shape);
        kv.grow(num_blocks)?;
        let layout =
            KvLayout { block_tokens: BLOCK_TOKENS, num_blocks, block_bytes, dtype: shape.dtype.name() };
        let info = ExecutorInfo {
            vocab_size: model.config().vocab_size,
            max_context,
            max_slots: options.max_slots,
            max_step_tokens: options.max_step_tokens,
            max_steps_in_flight: 1,
            kv: layout,
        };
        let mut slots = Vec::new();
        slots.resize_with(info.max_slots, || None);
        Ok(Self { ledger: Ledger::new(&info), info, model, kv, slots, next: 0, done: VecDeque::new() })
    }

    /// The model that runs.
    pub fn model(&self) -> &LlamaModel {
        &self.model
    }

    /// Runs the rows of a step that the ledger has accepted.
    fn compute(&mut self, step: &StepDiff, id: StepId) -> StepOutput {
        for block in step.blocks.iter().flat_map(|change| &change.blocks) {
            self.kv.touch(*block);
        }
        for slot in &step.freed {
            self.slots[slot.0 as usize] = None;
        }
        for admission in &step.admitted {
            self.slots[admission.slot.0 as usize] = Some(SlotState::new(admission));
        }
        // A decode row reads what its slot sampled last; the ledger has seen that there is one.
        let last = |slot: Slot| self.slots[slot.0 as usize].as_ref().and_then(SlotState::last).unwrap_or(0);
        let inputs: Vec<u32> = step.decode.iter().map(|row| last(row.slot)).collect();
        let prefill = step.prefill.iter().map(|chunk| Segment {
            table: self.ledger.table(chunk.slot),
            start: chunk.start as usize,
            tokens: &chunk.tokens,
            logits: match (chunk.context_logits, chunk.sample) {
                (true, _) => LogitsWanted::All,
                (false, Some(_)) => LogitsWanted::Last,
                (false, None) => LogitsWanted::None,
            },
        });
        let decode = step.decode.iter().zip(&inputs).map(|(row, token)| Segment {
            table: self.ledger.table(row.slot),
            start: row.position as usize,
            tokens: std::slice::from_ref(token),
            logits: LogitsWanted::Last,
        });
        let segments: Vec<Segment<'_>> = prefill.chain(decode).collect();
        if segments.is_empty() {
            return StepOutput { id, sampled: Vec::new(), context_logits: Vec::new() };
        }
        let vocab = self.info.vocab_size;
        let pool = Arc::clone(self.model.pool());
        let mut rows = self.model.step(&mut self.kv, &segments).chunks_exact_mut(vocab);

        // Rows of logits come in the order of the segments.
        let mut context_logits = Vec::new();
        let mut wanted: Vec<Option<(&mut [f32], u32)>> = Vec::new();
        wanted.resize_with(self.slots.len(), || None);
        for chunk in &step.prefill {
            let mut last = None;
            if chunk.context_logits {
                let mut all: Vec<&mut [f32]> = rows.by_ref().take(chunk.tokens.len()).collect();
                context_logits.push((chunk.slot, all.concat()));
                last = all.pop();
            } else if chunk.sample.is_some() {
                last = rows.next();
            }
            wanted[chunk.slot.0 as usize] = last.zip(chunk.sample);
        }
        for row in &step.decode {
            wanted[row.slot.0 as usize] = rows.next().zip(Some(row.sample));
        }
        let mut draws: Vec<Draw<'_>> = Vec::new();
        for ((state, wanted), slot) in self.slots.iter_mut().zip(wanted).zip(0..) {
            if let (Some(state), Some((logits, index))) = (state, wanted) {
                let mask = step.masks.iter().find(|mask| mask.slot == Slot(slot));
                draws.push(Draw { state, logits, index, mask, sampled: None });
            }
        }
        let count = draws.len();
        let each = SharedMut::new(&mut draws);
        pool.run_ranges(count, 4, |range| {
            // SAFETY: ranges are disjoint.
            unsafe { each.part(range) }.iter_mut().for_each(Draw::run);
        });
        let sampled = draws.into_iter().filter_map(|draw| draw.sampled).collect();
        StepOutput { id, sampled, context_logits }
    }
}

/// A token to be chosen.
struct Draw<'a> {
    state: &'a mut SlotState,
    logits: &'a mut [f32],
    index: u32,
    mask: Option<&'a TokenMask>,
    sampled: Option<Sampled>,
}

impl Draw<'_> {
    fn run(&mut self) {
        self.sampled = Some(self.state.sample(self.logits, self.index, self.mask));
    }
}

impl Executor for CpuExecutor {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn memory(&self) -> MemoryUse {
        let kv = &self.info.kv;
        MemoryUse { cpu: kv.num_blocks as u64 * kv.block_bytes as u64, ..MemoryUse::default() }
    }

    fn submit(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        if self.done.len() >= self.info.max_steps_in_flight {
            return Err(ExecutorError::Rules("a step is submitted before the last one was taken".to_owned()));
        }
        self.ledger.apply(step)?;
        let id = StepId(self.next);
        self.next += 1;
        let output = self.compute(step, id);
        self.done.push_back(output);
        Ok(id)
    }

    fn poll(&mut self, id: StepId) -> Result<Option<StepOutput>, ExecutorError> {
        self.wait(id).map(Some)
    }

    fn wait(&mut self, id: StepId) -> Result<StepOutput, ExecutorError> {
        match self.done.pop_front_if(|step| step.id == id) {
            Some(step) => Ok(step),
            None => Err(ExecutorError::Rules(format!("step {} is not the next to be taken", id.0))),
        }
    }
}
