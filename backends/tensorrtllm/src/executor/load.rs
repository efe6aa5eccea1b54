//! Loading a model: memory, weights, choices, the first graphs.

use std::time::Duration;

use trireme_llm::checkpoint::{DecoderConfig, DummyNumbers, WeightType};
use trireme_llm::executor::{ExecutorInfo, KvLayout};

use super::attention::{AttentionCut, AttentionPlaces, attention_groups};
use super::buffers::Buffers;
use super::decode_set::DecodeSet;
use super::forward::{Net, Rows};
use super::graphs::{Graphs, decode_step};
use super::memory_plan::{BLOCK_TOKENS, MemoryPlan};
use super::mixed;
use super::options::{EarlyLaunch, Options};
use super::results::{IN_FLIGHT, RING, Results};
use super::run::{CudaExecutor, UPLOAD};
use super::streams::StreamMaps;
use super::tiles::TileMaps;
use super::tune::Tuner;
use super::ways::Ways;
use crate::device::{Buffer, Device, Pinned, Stream};
use crate::error::{CudaError, Result};
use crate::gemm::Gemm;
use crate::kernels::{Kernels, StreamSize};
use crate::model::{Source, Weights, fill_with};
use crate::state::{Changes, DeviceState, Slots, as_bytes};
use crate::tuning::{Key, ModelShape, Products, Report, Session, Way};

/// Decode steps that are recorded at load; others when they are first needed.
const FIRST_GRAPHS: [usize; 5] = [16, 8, 4, 2, 1];

/// Prefill steps whose products are timed at load.
const TUNED_ROWS: [usize; 8] = [256, 384, 512, 1024, 2048, 4096, 6144, 8192];

/// Positions of each text while decode steps are timed.
const TUNED_CONTEXT: usize = 1024;

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
            (kernels.streams, kernels.tiles, kernels.attention_ring) = (None, None, None);
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
        let tile_maps =
            kernels.tiles.is_some().then(|| TileMaps::new(&weights, &buffers, options.max_step_tokens));
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
            tile_maps: tile_maps.transpose()?,
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
            tuning: Report::default(),
            info,
            plan,
            net,
            stream,
            device,
        };
        executor.prepare(options)?;
        Ok(executor)
    }

    /// Runs every kind of launch once, so that no code is loaded while a graph is recorded, chooses algorithms and
    /// records the first graphs.
    fn prepare(&mut self, options: &Options) -> Result<()> {
        let slots = self.info.max_slots;
        if options.tune {
            // As in use: beside texts without a past, what reads weights while keys and values are read would win nothing.
            self.occupy(slots, self.tuned_context())?;
            self.tune(options)?;
        }
        let mut bytes = vec![0; slots * 16];
        self.set.encode(&[], &mut bytes);
        self.set.buffer.write(0, &bytes, &self.stream)?;
        let sizes = StreamSize::ALL.map(|size| size.rows);
        for rows in [1, 2, 129, slots].into_iter().chain(sizes).filter(|&r| r <= slots) {
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

    fn tuned_context(&self) -> usize {
        TUNED_CONTEXT.min(self.info.max_context)
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
            graphs: self.graphs.is_some(),
            early: self.net.early,
            timing: Key::TIMING,
            context: self.tuned_context(),
            model: ModelShape::of(config),
        };
        let mut tuner = Tuner {
            device,
            stream: &self.stream,
            graphs: self.graphs.is_some(),
            session: Session::new(&options.tuning, &key, options.device),
            ways_within: options.ways_within,
            ways_took: Duration::ZERO,
        };
        let buffers = &self.net.buffers;
        let read = [&buffers.normed, &buffers.attended, &buffers.gated, &buffers.hidden, &buffers.residual];
        for (seed, buffer) in (1..).zip(read) {
            // On zeros a GPU takes less power, so its clock is not the one that steps will have.
            let numbers = DummyNumbers { seed, start: 0, scale: 1.0 / 147.0 };
            let elements = buffer.bytes() / 2;
            fill_with(&self.stream, &self.net.kernels, buffer.at(0), elements, numbers, WeightType::BF16)?;
        }
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
        // From the largest, whose way is that of smaller ones for which there is no time.
        for rows in self.sizes.sizes().iter().rev().copied() {
            self.net.tune_ways(&mut tuner, &self.set.rows(rows))?;
        }
        // Those of prompts behind them, with as much time of their own.
        tuner.ways_took = Duration::ZERO;
        let (largest, most) =
            (self.sizes.sizes().last().copied().unwrap_or_default(), self.info.max_step_tokens);
        let mut prompts: Vec<_> =
            TUNED_ROWS.into_iter().filter(|&rows| rows > largest && rows <= most).collect();
        if prompts.is_empty() && most > largest && StreamSize::of(most).is_none() {
            prompts.push(most);
        }
        for rows in prompts.into_iter().rev() {
            self.net.tune_ways(&mut tuner, &Rows::without_slots(rows))?;
        }
        self.tuning = tuner.session.end();
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

    /// Records the graph of a bucket if it is not there yet.
    fn graph(&mut self, bucket: usize) -> Result<()> {
        let (rows, samples) = (self.set.rows(bucket), self.decode_samples(bucket));
        if let Some(graphs) = &mut self.graphs {
            graphs.get(&self.device, &self.stream, &mut self.net, &rows, &samples)?;
        }
        Ok(())
    }
}
