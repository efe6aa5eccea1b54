//! Running steps.

use trireme_llm::executor::{
    DecodeRow, ExecutorError, ExecutorInfo, MemoryUse, Slot, StepDiff, StepId, StepOutput,
};

use super::decode_set::DecodeSet;
use super::forward::{Net, Rows, Samples};
use super::graphs::{Graphs, decode_step};
use super::memory_plan::{MemoryPlan, logits_stride};
use super::mixed::{self, MixedLayout};
use super::options::EarlyLaunch;
use super::results::{IN_FLIGHT, Pending, RING, Results};
use crate::device::{Buffer, Device, Event, Grid, Pinned, Stream, args};
use crate::error::{CudaError, Result};
use crate::state::{Changes, Slots, as_bytes};
use crate::tuning::Report;

/// Bytes of one upload of changes.
pub(super) const UPLOAD: usize = 4 << 20;

/// One model on one GPU.
pub struct CudaExecutor {
    pub(super) info: ExecutorInfo,
    pub(super) plan: MemoryPlan,
    pub(super) net: Net,
    pub(super) slots: Slots,
    pub(super) set: DecodeSet,
    pub(super) graphs: Option<Graphs>,
    pub(super) sizes: Graphs,
    pub(super) results: Results,
    pub(super) changes: Changes,
    pub(super) upload: Buffer,
    pub(super) mixed: Buffer,
    /// A staging buffer for each step that may be on its way.
    pub(super) staging: Vec<Pinned>,
    pub(super) next: u64,
    pub(super) sampled: Vec<Slot>,
    /// Where decode steps begin and end on the GPU, while somebody asks.
    pub(super) marks: Option<Vec<(Event, Event)>>,
    pub(super) tuning: Report,
    pub(super) stream: Stream,
    pub(super) device: Device,
}

impl CudaExecutor {
    pub fn memory_plan(&self) -> &MemoryPlan {
        &self.plan
    }

    pub(super) fn memory_use(&self) -> MemoryUse {
        let pinned = self.results.bytes() + self.staging.iter().map(|s| s.bytes().len()).sum::<usize>();
        MemoryUse { gpu: self.plan.taken() as u64, pinned: pinned as u64, ..MemoryUse::default() }
    }

    pub(super) fn executor_info(&self) -> &ExecutorInfo {
        &self.info
    }

    /// The GPU's name.
    pub fn device_name(&self) -> &str {
        &self.device.name
    }

    pub(super) fn decode_samples(&self, bucket: usize) -> Samples {
        let rows = self.set.rows(bucket);
        Samples {
            count: bucket,
            rows: 0,
            slots: rows.slots,
            indices: self.set.indices(),
            advance: rows.positions,
            results: self.results.address(),
            ring: RING,
            max_samples: self.info.max_slots,
        }
    }

    pub(super) fn submit_step(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        self.start_step(step).map_err(|error| match error {
            // cuBLASLt has no word for a GPU that is lost; the driver has.
            ExecutorError::Fatal(text) => match self.stream.synchronize() {
                Err(CudaError::Lost { .. }) => ExecutorError::DeviceLost(text),
                _ => ExecutorError::Fatal(text),
            },
            error => error,
        })
    }

    fn start_step(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        let id = StepId(self.begin(step)?);
        let mut context_logits = Vec::new();
        if step.prefill.is_empty() && !step.decode.is_empty() {
            self.run_decode(step, id)?;
        } else {
            self.run_mixed(step, id, &mut context_logits)?;
        }
        let sampled = std::mem::take(&mut self.sampled);
        self.finish(id, &sampled)?;
        self.sampled = sampled;
        if let Some(pending) = self.results.pending.back_mut() {
            pending.context_logits = context_logits;
        }
        Ok(id)
    }

    /// Takes a step's changes. Its number.
    pub(super) fn begin(&mut self, step: &StepDiff) -> Result<u64, ExecutorError> {
        if self.results.pending.len() >= IN_FLIGHT {
            return Err(ExecutorError::Rules(format!("more than {IN_FLIGHT} steps in flight")));
        }
        self.slots.apply(step).map_err(ExecutorError::Rules)?;
        self.device.bind()?;
        self.collect_changes(step);
        self.send_changes(StepId(self.next))?;
        Ok(self.next)
    }

    /// Marks the end of a step in which these slots choose tokens.
    pub(super) fn finish(&mut self, id: StepId, sampled: &[Slot]) -> Result<()> {
        self.results.event(id).record(&self.stream)?;
        self.next += 1;
        let sampled = sampled.iter().map(|slot| (*slot, self.slots.wants_logprobs(slot.0))).collect();
        self.results.pending.push_back(Pending { id, sampled, context_logits: Vec::new() });
        Ok(())
    }

    fn collect_changes(&mut self, step: &StepDiff) {
        self.changes.reset();
        for admission in &step.admitted {
            self.changes.admit(admission);
        }
        for change in &step.blocks {
            self.changes.table(change.slot.0, change.first as usize, change.blocks.iter().map(|b| b.0));
        }
        for mask in &step.masks {
            self.changes.mask(mask, self.net.state.args.mask_words as usize);
        }
    }

    fn send_changes(&mut self, id: StepId) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let state = self.net.state.args;
        let device_step = device_step(id) as u32;
        let staging = &mut self.staging[id.0 as usize % RING];
        let heads_at = self.upload.at(0);
        let grid = |blocks| Grid { blocks: (blocks, 1, 1), threads: 256, ..Grid::default() };
        if !self.changes.clear.is_empty() {
            // SAFETY: plain numbers without padding.
            let bytes = unsafe { as_bytes(&self.changes.clear) };
            self.upload.write(0, bytes, &self.stream)?;
            // SAFETY: the arguments are those of `clear_slots`, and the heads are there.
            unsafe {
                self.net.kernels.clear_slots.launch(
                    &self.stream,
                    grid(self.changes.clear.len()),
                    args![state, heads_at],
                )?;
            }
        }
        for (i, piece) in self.changes.pieces(UPLOAD).iter().enumerate() {
            if i > 0 {
                // The staging buffer is taken again: rare, and only for changes of megabytes.
                self.stream.synchronize()?;
            }
            let bytes = piece.write(staging.bytes_mut());
            // SAFETY: the staging buffer is not written before the step that used it has been waited for.
            unsafe { self.upload.write_async(0, &staging.bytes()[..bytes], &self.stream)? };
            let payload = self.upload.at(size_of_val(piece.heads));
            // SAFETY: the arguments are those of `apply_changes`.
            unsafe {
                self.net.kernels.apply_changes.launch(
                    &self.stream,
                    grid(piece.heads.len()),
                    args![state, heads_at, payload, device_step],
                )?;
            }
        }
        Ok(())
    }

    fn run_decode(&mut self, step: &StepDiff, id: StepId) -> Result<()> {
        let bucket = self.sizes.bucket(step.decode.len());
        if !self.set.holds(&step.decode, bucket) {
            self.put_decode_set(&step.decode, id)?;
        }
        let (rows, samples) = (self.set.rows(bucket), self.decode_samples(bucket));
        let graph = match &mut self.graphs {
            Some(graphs) => graphs.get(&self.device, &self.stream, &mut self.net, &rows, &samples)?,
            None => None,
        };
        let marks = self.marks.is_some().then(|| Event::pair(&self.device)).transpose()?;
        if let Some((begin, _)) = &marks {
            begin.record(&self.stream)?;
        }
        match graph {
            // SAFETY: all that the graph names belongs to this executor.
            Some(graph) => unsafe { graph.launch(&self.stream)? },
            None => decode_step(&self.stream, &mut self.net, &rows, &samples)?,
        }
        if let Some((begin, end)) = marks {
            end.record(&self.stream)?;
            self.marks.get_or_insert_default().push((begin, end));
        }
        self.set.advance();
        self.sampled.clear();
        self.sampled.extend(step.decode.iter().map(|row| row.slot));
        Ok(())
    }

    /// From here on, the GPU's time is noted at the begin and the end of decode steps, until [`Self::idle_between_steps`].
    pub fn mark_steps(&mut self) {
        self.marks = Some(Vec::new());
    }

    /// Microseconds in which the GPU ran no decode step, from the end of each to the begin of the next. All must be done.
    pub fn idle_between_steps(&mut self) -> Result<Vec<f32>> {
        let marks = self.marks.take().unwrap_or_default();
        marks.windows(2).map(|pair| Ok(pair[1].0.since(&pair[0].1)? * 1e3)).collect()
    }

    /// Sends the decode rows.
    pub(super) fn put_decode_set(&mut self, rows: &[DecodeRow], id: StepId) -> Result<()> {
        let staging = &mut self.staging[id.0 as usize % RING];
        let bytes = self.set.encode(rows, &mut staging.bytes_mut()[UPLOAD..]);
        // SAFETY: as for changes.
        unsafe { self.set.buffer.write_async(0, &staging.bytes()[UPLOAD..UPLOAD + bytes], &self.stream) }
    }

    fn run_mixed(&mut self, step: &StepDiff, id: StepId, context: &mut Vec<(Slot, Vec<f32>)>) -> Result<()> {
        let (rows, l) = self.upload_mixed(step, id)?;
        if l.rows > 0 {
            self.net.embed(&self.stream, &rows)?;
            self.net.layers(&self.stream, &rows)?;
        }
        self.context_logits(step, &l, context)?;
        let samples = Samples {
            count: l.samples,
            rows: self.mixed.at(l.offset(3)),
            slots: self.mixed.at(l.offset(4)),
            indices: self.mixed.at(l.offset(5)),
            advance: 0,
            ..self.decode_samples(1)
        };
        if l.samples > 0 {
            self.net.logits(&self.stream, samples.rows, l.samples)?;
        }
        self.net.sample(&self.stream, &samples)
    }

    /// Sends the arrays of a step that is not decode alone.
    pub(super) fn upload_mixed(&mut self, step: &StepDiff, id: StepId) -> Result<(Rows, MixedLayout)> {
        let staging = &mut self.staging[id.0 as usize % RING];
        let at = UPLOAD + (self.info.max_slots * 16).next_multiple_of(256);
        let l = mixed::encode(step, &mut staging.bytes_mut()[at..], &mut self.sampled);
        // SAFETY: as for changes.
        unsafe { self.mixed.write_async(0, &staging.bytes()[at..at + l.bytes], &self.stream)? };
        let array = |i: usize| self.mixed.at(l.offset(i));
        let rows = Rows {
            count: l.rows,
            decode: l.decode,
            tiles: self.mixed.at(0),
            num_tiles: l.tiles,
            tokens: array(0),
            slots: array(1),
            positions: array(2),
        };
        Ok((rows, l))
    }

    /// Logits of every row of the chunks that want them, copied as they come.
    fn context_logits(
        &mut self,
        step: &StepDiff,
        l: &MixedLayout,
        out: &mut Vec<(Slot, Vec<f32>)>,
    ) -> Result<()> {
        let (vocab, stride) = (self.info.vocab_size, logits_stride(self.info.vocab_size));
        let mut first = l.decode;
        for chunk in &step.prefill {
            let rows = chunk.tokens.len();
            if chunk.context_logits {
                let mut all = Vec::with_capacity(rows * vocab);
                let most = self.info.max_slots.min(64);
                for start in (0..rows).step_by(most) {
                    let count = most.min(rows - start);
                    let ids: Vec<i32> = (0..count).map(|i| (first + start + i) as i32).collect();
                    // SAFETY: plain numbers.
                    self.upload.write(0, unsafe { as_bytes(&ids) }, &self.stream)?;
                    self.net.logits(&self.stream, self.upload.at(0), count)?;
                    let mut bytes = vec![0; count * stride * 4];
                    self.net.buffers.logits.read(0, &mut bytes, &self.stream)?;
                    for row in bytes.chunks_exact(stride * 4) {
                        let values = row[..vocab * 4].as_chunks::<4>().0.iter();
                        all.extend(values.map(|v| f32::from_le_bytes(*v)));
                    }
                }
                out.push((chunk.slot, all));
            }
            first += rows;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, id: StepId, block: bool) -> Result<Option<StepOutput>, ExecutorError> {
        match self.results.pending.front() {
            Some(front) if front.id == id => {}
            Some(front) => {
                let front = front.id.0;
                return Err(ExecutorError::Rules(format!("step {} is asked for before step {front}", id.0)));
            }
            None => return Err(ExecutorError::Rules(format!("step {} is not in flight", id.0))),
        }
        let event = self.results.event(id);
        if block {
            event.wait()?;
        } else if !event.is_done()? {
            return Ok(None);
        }
        let pending = self.results.pending.pop_front();
        Ok(pending.map(|step| self.results.read(step, device_step(id))))
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        // Memory is freed field by field; no work may be running in it.
        let _ = self.device.bind();
        let _ = self.stream.synchronize();
    }
}

/// A step's number as the device counts.
fn device_step(id: StepId) -> u64 {
    id.0 + 1
}

impl CudaExecutor {
    /// The decode sizes that have a bucket of their own.
    pub fn decode_buckets(&self) -> &[usize] {
        self.sizes.sizes()
    }

    pub(super) fn set_ref(&self) -> &DecodeSet {
        &self.set
    }

    pub(super) fn device_ref(&self) -> &Device {
        &self.device
    }

    pub(super) fn net_ref(&self) -> &Net {
        &self.net
    }

    pub(super) fn uses_graphs(&self) -> bool {
        self.graphs.is_some()
    }

    /// Other early launches from here on; the graphs are recorded anew.
    pub fn set_early(&mut self, early: EarlyLaunch) {
        self.net.early = early;
        let slots = self.info.max_slots;
        self.graphs = self.graphs.is_some().then(|| Graphs::new(slots, &[], None));
    }

    pub(super) fn parts(&mut self) -> (&mut Net, &Stream) {
        (&mut self.net, &self.stream)
    }
}
