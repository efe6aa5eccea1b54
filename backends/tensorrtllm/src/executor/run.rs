//! Loading a model and running its steps.

use trireme_llm::checkpoint::DecoderConfig;
use trireme_llm::executor::{
    DecodeRow, ExecutorError, ExecutorInfo, KvLayout, MemoryUse, Slot, StepDiff, StepId, StepOutput,
};

use super::attention::{AttentionCut, AttentionPlaces, attention_groups};
use super::buffers::Buffers;
use super::decode_set::DecodeSet;
use super::forward::{Net, Rows, Samples};
use super::graphs::{Graphs, decode_step};
use super::memory_plan::{BLOCK_TOKENS, MemoryPlan, logits_stride};
use super::mixed::{self, MixedLayout};
use super::options::{EarlyLaunch, Options};
use super::results::{IN_FLIGHT, Pending, RING, Results};
use super::streams::StreamMaps;
use super::tune::Tuner;
use super::ways::Ways;
use crate::device::{Buffer, Device, Event, Grid, Pinned, Stream, args};
use crate::error::{CudaError, Result};
use crate::gemm::Gemm;
use crate::kernels::{Kernels, StreamSize};
use crate::model::{Source, Weights};
use crate::state::{Changes, DeviceState, Slots, as_bytes};
use crate::tuning::{Key, ModelShape, Origin, Products, Report, Way};

/// Bytes of one upload of changes.
const UPLOAD: usize = 4 << 20;

/// Decode steps that are recorded at load; others when they are first needed.
const FIRST_GRAPHS: [usize; 5] = [16, 8, 4, 2, 1];

/// Prefill steps whose products are timed at load.
const TUNED_ROWS: [usize; 8] = [256, 384, 512, 1024, 2048, 4096, 6144, 8192];

/// One model on one GPU.
pub struct CudaExecutor {
    info: ExecutorInfo,
    plan: MemoryPlan,
    net: Net,
    slots: Slots,
    set: DecodeSet,
    graphs: Option<Graphs>,
    sizes: Graphs,
    results: Results,
    changes: Changes,
    upload: Buffer,
    mixed: Buffer,
    /// A staging buffer for each step that may be on its way.
    staging: Vec<Pinned>,
    next: u64,
    sampled: Vec<Slot>,
    /// Where decode steps begin and end on the GPU, while somebody asks.
    marks: Option<Vec<(Event, Event)>>,
    tuning: Report,
    stream: Stream,
    device: Device,
}

impl CudaExecutor {
    /// Loads a model: plans the memory, brings the weights, chooses algorithms, records the first graphs.
    pub fn load(config: &DecoderConfig, source: &Source<'_>, options: &Options) -> Result<Self> {
        check_sizes(options)?;
        let device = Device::open(options.device)?;
        let stream = Stream::new(&device)?;
        let (c, slots) = (config, options.max_slots);
        let groups = attention_groups(c.num_heads, c.num_kv_heads);
        let mut kernels = Kernels::load(&device, c.head_dim, options.kernel_cache.as_deref())?;
        if !options.sm90_prefill {
            kernels.attention_prefill_sm90 = None;
        }
        if !options.sm90_decode {
            (kernels.streams, kernels.attention_ring) = (None, None);
        }
        let places = AttentionPlaces::new(&kernels, device.multiprocessors, c.head_dim);
        let parts = |rows| AttentionCut::new(rows, groups, places, options.deterministic).parts;
        let most_parts = (1..=slots).map(|rows| rows * groups * parts(rows)).max().unwrap_or(1);
        let parts_bytes = most_parts * 8 * (c.head_dim + 2) * 4;
        let gemm = Gemm::new(&device)?;
        let (free, _) = device.memory()?;
        let plan = MemoryPlan::new(c, options, parts_bytes, free + Gemm::workspace_bytes(), c.head_dim)?;
        let table_width = plan.max_context.div_ceil(BLOCK_TOKENS);
        let state = DeviceState::new(&device, slots, table_width, c.vocab_size)?;
        let dummy_table = vec![plan.num_blocks as i32; table_width];
        let dummy_at = (state.args.tables - state.buffer().at(0)) as usize + slots * table_width * 4;
        // SAFETY: plain numbers.
        state.buffer().write(dummy_at, unsafe { as_bytes(&dummy_table) }, &stream)?;
        let buffers = Buffers::new(&device, c, options, &plan, parts_bytes)?;
        let weights = Weights::load(&device, &stream, &kernels, c, source, plan.max_context)?;
        let maps = kernels
            .streams
            .is_some()
            .then(|| StreamMaps::new(&weights, &buffers, options.max_step_tokens, options.max_slots));
        let info = ExecutorInfo {
            vocab_size: c.vocab_size,
            max_context: plan.max_context,
            max_slots: slots,
            max_step_tokens: options.max_step_tokens,
            max_steps_in_flight: IN_FLIGHT,
            kv: KvLayout {
                block_tokens: BLOCK_TOKENS,
                num_blocks: plan.num_blocks,
                block_bytes: plan.block_bytes,
                dtype: "bfloat16",
            },
        };
        let mixed_bytes = mixed::max_bytes(options.max_step_tokens, slots);
        let staging_bytes = UPLOAD + slots * 16 + mixed_bytes + 256;
        let net = Net {
            kernels,
            weights,
            gemm,
            buffers,
            state,
            maps: maps.transpose()?,
            ways: Ways::default(),
            multiprocessors: device.multiprocessors,
            skinny_rows: options.skinny_rows,
            deterministic: options.deterministic,
            early: if device.overlaps_launches() { options.early } else { EarlyLaunch::OFF },
        };
        let mut executor = Self {
            slots: Slots::new(&info),
            set: DecodeSet::new(&device, slots, slots)?,
            graphs: options.graphs.then(|| Graphs::new(slots, &options.decode_sizes, options.max_graphs)),
            sizes: Graphs::new(slots, &options.decode_sizes, None),
            results: Results::new(&device, slots)?,
            changes: Changes::default(),
            upload: Buffer::new(&device, UPLOAD)?,
            mixed: Buffer::new(&device, mixed_bytes)?,
            staging: (0..RING).map(|_| Pinned::new(&device, staging_bytes)).collect::<Result<_>>()?,
            next: 0,
            sampled: Vec::new(),
            marks: None,
            tuning: Report { origin: Origin::Timed, timed: 0, written: None, notes: Vec::new() },
            info,
            plan,
            net,
            stream,
            device,
        };
        executor.prepare(options)?;
        Ok(executor)
    }

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

    /// Runs every kind of launch once, so that no code is loaded while a graph is recorded, chooses algorithms and
    /// records the first graphs.
    fn prepare(&mut self, options: &Options) -> Result<()> {
        let slots = self.info.max_slots;
        let mut bytes = vec![0; slots * 16];
        self.set.encode(&[], &mut bytes);
        self.set.buffer.write(0, &bytes, &self.stream)?;
        if options.tune {
            self.tune(options)?;
        }
        for rows in [1, 2, 9, 17, 33, 65, 129, slots].into_iter().filter(|&r| r <= slots) {
            let (rows, samples) = (self.set.rows(rows), self.decode_samples(rows));
            decode_step(&self.stream, &mut self.net, &rows, &samples)?;
        }
        self.stream.synchronize()?;
        // From the largest: what a larger one needs serves the smaller ones, too.
        let mut first: Vec<usize> = FIRST_GRAPHS
            .iter()
            .chain(&options.first_graphs)
            .map(|&r| self.sizes.bucket(r.min(slots)))
            .collect();
        first.sort_unstable_by_key(|r| std::cmp::Reverse(*r));
        first.dedup();
        for rows in first {
            self.graph(rows)?;
        }
        // The device counts from 1: 0 is "no mask" in a fresh slot.
        let step = [1u32, 0];
        // SAFETY: plain numbers.
        self.net.state.buffer().write(self.net.state.step_offset(), unsafe { as_bytes(&step) }, &self.stream)
    }

    /// Chooses algorithms, layouts and ways: those of a table that was kept, or the fastest of all, which are then kept.
    fn tune(&mut self, options: &Options) -> Result<()> {
        let (device, config) = (&self.device, &self.net.weights.config);
        let key = Key {
            device: device.name.to_string(),
            capability: device.capability,
            multiprocessors: device.multiprocessors,
            driver: device.driver_version()?,
            cublaslt: Gemm::version(),
            kernels: self.net.kernels.hash.clone(),
            model: ModelShape::of(config),
        };
        let (mut table, report) = options.tuning.read(&key);
        self.tuning = report;
        let (stream, graphs) = (&self.stream, self.graphs.is_some());
        let mut tuner = Tuner { device, stream, graphs, table: &mut table, timed: 0 };
        let most = self.info.max_slots.min(self.info.max_step_tokens);
        for rows in TUNED_ROWS.into_iter().filter(|&r| r <= self.info.max_step_tokens) {
            self.net.tune(&mut tuner, rows, 0)?;
        }
        // The largest size of a bucket is timed for all of it.
        for rows in self.sizes.sizes().iter().rev().copied() {
            self.net.tune(&mut tuner, rows, rows)?;
        }
        let mut done = 0;
        for size in StreamSize::ALL {
            let rows = size.rows.min(most);
            if rows > done {
                self.net.tune_streams(&mut tuner, &self.set.rows(rows))?;
                done = rows;
            }
        }
        for rows in self.sizes.sizes().iter().copied() {
            self.net.tune_ways(&mut tuner, &self.set.rows(rows))?;
        }
        self.tuning.timed = tuner.timed;
        options.tuning.write(&key, &table, &mut self.tuning);
        Ok(())
    }

    /// Where the choices of kernels come from.
    pub fn tuning(&self) -> &Report {
        &self.tuning
    }

    /// How decode steps of a size compute their layers' products and the head's.
    pub fn ways(&self, rows: usize) -> (Way, Way) {
        (self.net.way(Products::Layers, rows), self.net.way(Products::Head, rows))
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

    /// Records the graph of a bucket if it is not there yet.
    fn graph(&mut self, bucket: usize) -> Result<()> {
        let (rows, samples) = (self.set.rows(bucket), self.decode_samples(bucket));
        if let Some(graphs) = &mut self.graphs {
            graphs.get(&self.device, &self.stream, &mut self.net, &rows, &samples)?;
        }
        Ok(())
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

/// Rows and sequences are a dimension of grids, which ends here.
const MAX_ROWS: usize = 65535;

fn check_sizes(options: &Options) -> Result<()> {
    let sizes = [
        ("sequences at a time (max_batch_size)", options.max_slots),
        ("rows of a step (max_num_tokens)", options.max_step_tokens),
    ];
    for (what, size) in sizes {
        if size == 0 || size > MAX_ROWS {
            return Err(CudaError::Unsupported(format!("{size} {what}: there must be 1 to {MAX_ROWS}")));
        }
    }
    Ok(())
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
