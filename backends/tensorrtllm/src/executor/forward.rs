//! The launches of a step: embedding, layers, logits, sampling.

use super::buffers::{Buffers, SCAN_CHUNKS};
use super::memory_plan::{BLOCK_TOKENS, logits_stride};
use super::options::EarlyLaunch;
use super::profile::Part;
use super::streams::{Activation, Matrix, Place, RopeArgs, StreamMaps, StreamProduct};
use crate::device::{Grid, Stream, args};
use crate::error::Result;
use crate::gemm::{Gemm, Kind, Product};
use crate::kernels::{
    Kernels, StreamKind, few_rows_threads, prefill_shared_bytes, prefill_sm90_shared_bytes, ring_blocks,
    ring_shared_bytes,
};
use crate::model::Weights;
use crate::state::{DeviceState, DeviceStateArgs};

/// Rows of the kernel for few rows.
const SKINNY_MAX: usize = 16;

/// The model and all it computes with.
pub(super) struct Net {
    pub(super) kernels: Kernels,
    pub(super) weights: Weights,
    pub(super) gemm: Gemm,
    pub(super) buffers: Buffers,
    pub(super) state: DeviceState,
    /// Of products on Hopper.
    pub(super) maps: Option<StreamMaps>,
    pub(super) multiprocessors: usize,
    pub(super) skinny_rows: usize,
    pub(super) deterministic: bool,
    pub(super) early: EarlyLaunch,
}

/// The rows of a step, as addresses of arrays on the GPU. Decode rows come first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) count: usize,
    pub(super) decode: usize,
    /// Tiles of prefill attention: `int4` each.
    pub(super) tiles: u64,
    pub(super) num_tiles: usize,
    pub(super) tokens: u64,
    pub(super) slots: u64,
    pub(super) positions: u64,
}

/// What is sampled, as addresses of arrays on the GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples {
    pub(super) count: usize,
    /// The rows that are sampled; 0 if sample `i` is row `i`.
    pub(super) rows: u64,
    pub(super) slots: u64,
    pub(super) indices: u64,
    /// Positions that move on after the step; 0 for none.
    pub(super) advance: u64,
    /// Results in the host's memory: `ring` arrays of `max_samples`.
    pub(super) results: u64,
    pub(super) ring: usize,
    pub(super) max_samples: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DecodeArgs {
    qkv: u64,
    keys: u64,
    values: u64,
    out: u64,
    row_slot: u64,
    row_position: u64,
    tables: u64,
    parts: u64,
    arrived: u64,
    table_width: i32,
    block_tokens: i32,
    q_heads: i32,
    kv_heads: i32,
    window: i32,
    scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PrefillArgs {
    qkv: u64,
    keys: u64,
    values: u64,
    out: u64,
    tiles: u64,
    tables: u64,
    table_width: i32,
    block_tokens: i32,
    q_heads: i32,
    kv_heads: i32,
    window: i32,
    scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PrefillArgs90 {
    qkv: u64,
    out: u64,
    tiles: u64,
    tables: u64,
    /// Of keys, of values, of all the memory.
    rows: [u32; 3],
    table_width: i32,
    q_heads: i32,
    kv_heads: i32,
    window: i32,
    scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SampleArgs {
    state: DeviceStateArgs,
    logits: u64,
    partials: u64,
    slots: u64,
    indices: u64,
    row_position: u64,
    results: u64,
    stride: i32,
    chunks: i32,
    ring: i32,
    max_samples: i32,
}

/// A matrix with what is fused around its product.
#[derive(Clone, Copy)]
struct Linear {
    weight: u64,
    /// Of the norm in front; 0 for none.
    norm: u64,
    n: usize,
    k: usize,
    out: Out,
}

#[derive(Clone, Copy)]
enum Out {
    Store,
    StoreF32,
    /// To the residual stream.
    Add,
    SiluMul,
    Rope(RopeArgs),
}

/// How decode attention is cut: by the copy engine or not, and in how many parts at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttentionCut {
    pub(super) ring: bool,
    pub(super) parts: usize,
}

/// Most parts of a sequence.
const MAX_PARTS: usize = 32;

impl AttentionCut {
    /// For `rows` sequences of `groups` blocks each. Where results must not depend on the number of rows, always the same.
    pub(super) fn new(rows: usize, groups: usize, places: AttentionPlaces, deterministic: bool) -> Self {
        let blocks = (rows * groups).max(1);
        if deterministic {
            return Self { ring: false, parts: 8 };
        }
        match places.ring {
            Some(places) if rows > RING_ROWS => {
                // Rounds of blocks; a whole sequence of 1k positions is 16 tiles a warp, and a block begins and ends in
                // the time of about three.
                let time = |parts: usize| (blocks * parts).div_ceil(places) * (16 * 8 / parts + 24);
                let parts = (1..=MAX_PARTS).min_by_key(|parts| time(*parts)).unwrap_or(1);
                Self { ring: true, parts }
            }
            // About eight blocks a multiprocessor.
            _ => {
                Self { ring: false, parts: (8 * places.multiprocessors).div_ceil(blocks).clamp(1, MAX_PARTS) }
            }
        }
    }
}

/// Sequences up to which attention's loads go to registers: less is to be set up.
const RING_ROWS: usize = 1;

/// What a GPU has for blocks of decode attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionPlaces {
    multiprocessors: usize,
    /// Blocks with the copy engine that run at a time.
    ring: Option<usize>,
}

impl AttentionPlaces {
    pub(super) fn new(kernels: &Kernels, multiprocessors: usize, head_dim: usize) -> Self {
        let ring = kernels.attention_ring.as_ref().map(|_| multiprocessors * ring_blocks(head_dim));
        Self { multiprocessors, ring }
    }
}

/// Blocks of decode attention for one row and part: kv heads, and groups of more than 8 query heads several times.
pub(super) fn attention_groups(heads: usize, kv_heads: usize) -> usize {
    kv_heads * (heads / kv_heads).div_ceil(8)
}

impl Net {
    fn grid(&self, blocks: (usize, usize, usize), threads: usize) -> Grid {
        Grid { blocks, threads, early: self.early.rows, ..Grid::default() }
    }

    /// Token vectors into the hidden stream.
    pub(super) fn embed(&self, stream: &Stream, rows: &Rows) -> Result<()> {
        let size = self.weights.config.hidden_size as i32;
        let (table, last) = (self.weights.embedding, self.state.args.last_token);
        let (residual, hidden) = (self.buffers.residual.at(0), self.buffers.hidden.at(0));
        let squares = self.buffers.squares.at(0);
        let gain = match self.weights.layers.first() {
            Some(layer) if self.streams(rows.count) => layer.input_norm,
            _ => 0,
        };
        let grid = self.grid((rows.count, 1, 1), 128);
        // SAFETY: the arguments are those of `embed`; all arrays have `rows.count` entries.
        unsafe {
            self.kernels.embed.launch(
                stream,
                grid,
                args![table, rows.tokens, rows.slots, last, residual, hidden, gain, squares, size],
            )
        }
    }

    /// All layers.
    pub(super) fn layers(&mut self, stream: &Stream, rows: &Rows) -> Result<()> {
        for layer in 0..self.weights.config.num_layers {
            for part in [Part::Qkv, Part::Rope, Part::Attention, Part::Output, Part::GateUp, Part::Down] {
                self.part(stream, rows, layer, part)?;
            }
        }
        Ok(())
    }

    /// One part of a layer.
    pub(super) fn part(&mut self, stream: &Stream, rows: &Rows, layer: usize, part: Part) -> Result<()> {
        let c = &self.weights.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let (q, qkv) = (c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
        let (w, b) = (self.weights.layers[layer], &self.buffers);
        let (residual, normed, attended, gated) =
            (b.residual.at(0), b.normed.at(0), b.attended.at(0), b.gated.at(0));
        let rotates = self.rotates_behind_product(rows.count);
        let place = match part {
            Part::Rope if rotates => return Ok(()),
            Part::Rope => return self.rope_write(stream, rows, layer),
            Part::Attention => return self.attend(stream, rows, layer),
            Part::Qkv => Place::Qkv,
            Part::Output => Place::Output,
            Part::GateUp => Place::GateUp,
            Part::Down => Place::Down,
        };
        if self.streams(rows.count) {
            return self.stream(stream, &self.layer_product(rows, layer, place));
        }
        let (l, x, to) = match place {
            Place::Qkv => {
                let out = if rotates { Out::Rope(self.rope_args(rows, layer)) } else { Out::Store };
                (Linear { weight: w.qkv, norm: w.input_norm, n: qkv, k: hidden, out }, normed, b.qkv.at(0))
            }
            Place::Output => {
                (Linear { weight: w.o, norm: 0, n: hidden, k: q, out: Out::Add }, attended, residual)
            }
            Place::GateUp => {
                let (norm, out) = (w.post_norm, Out::SiluMul);
                (Linear { weight: w.gate_up, norm, n: inter, k: hidden, out }, normed, gated)
            }
            Place::Down => {
                (Linear { weight: w.down, norm: 0, n: hidden, k: inter, out: Out::Add }, gated, residual)
            }
        };
        self.linear(stream, l, rows.count, x, to)
    }

    /// Whether products of so many rows are those of few.
    pub(super) fn few(&self, rows: usize) -> bool {
        self.deterministic || rows <= self.skinny_rows.min(SKINNY_MAX) && !self.streams(rows)
    }

    /// A product with its norm in front and its epilogue behind: one launch for few rows, else three at most. `x`: what it
    /// reads, and where the norm puts it.
    fn linear(&mut self, stream: &Stream, l: Linear, rows: usize, x: u64, out: u64) -> Result<()> {
        if self.few(rows) {
            let x = if l.norm == 0 { x } else { self.buffers.hidden.at(0) };
            return self.by_few(stream, l, rows, (x, out), l.n);
        }
        if l.norm != 0 {
            self.norm(stream, l.norm, 0, x, rows)?;
        }
        let product =
            |kind, n, out| Product { kind, weight: l.weight, x, out, m: rows, n, k: l.k, stride: n };
        match l.out {
            // SAFETY: the matrices have the sizes of the model, and rows for a whole step.
            Out::Store | Out::Rope(_) => unsafe { self.gemm.run(stream, &product(Kind::Store, l.n, out)) },
            // SAFETY: as above.
            Out::StoreF32 => unsafe { self.gemm.run(stream, &product(Kind::StoreF32, l.n, out)) },
            // SAFETY: as above.
            Out::Add => unsafe { self.gemm.run(stream, &product(Kind::Add, l.n, out)) },
            Out::SiluMul => {
                let both = self.buffers.gate_up.at(0);
                // SAFETY: as above.
                unsafe { self.gemm.run(stream, &product(Kind::Store, 2 * l.n, both))? };
                let size = l.n as i32;
                let grid = self.grid(((l.n / 8).div_ceil(256), rows, 1), 256);
                // SAFETY: the arguments are those of `silu_mul`.
                unsafe { self.kernels.silu_mul.launch(stream, grid, args![both, out, size]) }
            }
        }
    }

    /// A product of any number of rows, 16 at a time: each row is computed as it would be alone.
    fn by_few(
        &self,
        stream: &Stream,
        l: Linear,
        rows: usize,
        (x, out): (u64, u64),
        stride: usize,
    ) -> Result<()> {
        let bytes = if matches!(l.out, Out::StoreF32 | Out::Add) { 4 } else { 2 };
        (0..rows).step_by(SKINNY_MAX).try_for_each(|first| {
            let (x, out) = (x + (first * l.k * 2) as u64, out + (first * stride * bytes) as u64);
            let copy = self.buffers.hidden.at(first * self.weights.config.hidden_size * 2);
            let out_of = match l.out {
                Out::Rope(rope) => Out::Rope(rope.skipping(first)),
                other => other,
            };
            let l = Linear { out: out_of, ..l };
            self.few_rows(stream, l, SKINNY_MAX.min(rows - first), (x, out, copy), stride)
        })
    }

    /// One launch for a product of at most 16 rows. `copy`: where what is added has its copy in bf16.
    fn few_rows(
        &self,
        stream: &Stream,
        l: Linear,
        rows: usize,
        (x, out, copy): (u64, u64, u64),
        stride: usize,
    ) -> Result<()> {
        let few = &self.kernels.few;
        let (pair, outputs) = match l.out {
            Out::Store => (few.norm, 16),
            Out::StoreF32 => (few.norm_f32, 16),
            Out::SiluMul => (few.norm_silu_mul, 8),
            Out::Add => (few.add, 16),
            Out::Rope(_) => (few.norm_rope, 16),
        };
        let function = pair[usize::from(rows > 8)];
        let threads = few_rows_threads(matches!(l.out, Out::Add));
        let grid = Grid { early: self.early.products, ..self.grid((l.n.div_ceil(outputs), 1, 1), threads) };
        let eps = self.weights.config.rms_norm_eps;
        let (n, k, rows, stride) = (l.n as i32, l.k as i32, rows as i32, stride as i32);
        let late = i32::from(self.early.late);
        // SAFETY: the arguments are those of the `skinny` kernels; matrices have the sizes of the model.
        unsafe {
            match l.out {
                Out::Rope(rope) => {
                    let args = args![l.weight, x, l.norm, eps, out, copy, n, k, rows, stride, late, rope];
                    function.launch(stream, grid, args)
                }
                _ => {
                    let args = args![l.weight, x, l.norm, eps, out, copy, n, k, rows, stride, late];
                    function.launch(stream, grid, args)
                }
            }
        }
    }

    /// Norm of the residual stream's rows, all or those at `rows`.
    fn norm(&self, stream: &Stream, weight: u64, rows: u64, out: u64, count: usize) -> Result<()> {
        let x = self.buffers.residual.at(0);
        let (size, eps) = (self.weights.config.hidden_size as i32, self.weights.config.rms_norm_eps);
        // SAFETY: the arguments are those of `rms_norm`.
        unsafe {
            self.kernels.rms_norm.launch(
                stream,
                self.grid((count, 1, 1), 256),
                args![x, weight, rows, out, size, eps],
            )
        }
    }

    fn rope_write(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        let (c, w, b, s) =
            (&self.weights.config, &self.weights.layers[layer], &self.buffers, &self.state.args);
        let (qkv, keys, values) = (b.qkv.at(0), b.keys(layer), b.values(layer));
        let angles = self.weights.angles.at(0);
        let (eps, block_tokens) = (c.rms_norm_eps, BLOCK_TOKENS as i32);
        let (q_heads, kv_heads, head_dim) = (c.num_heads as i32, c.num_kv_heads as i32, c.head_dim as i32);
        let heads = c.num_heads + 2 * c.num_kv_heads;
        let grid = self.grid((heads.div_ceil(8), rows.count, 1), 256);
        // SAFETY: the arguments are those of `rope_write`; every row's position lies in its slot's table.
        unsafe {
            self.kernels.rope_write.launch(
                stream,
                grid,
                args![
                    qkv,
                    w.qkv_bias,
                    w.q_norm,
                    w.k_norm,
                    eps,
                    angles,
                    rows.slots,
                    rows.positions,
                    s.tables,
                    s.table_width,
                    keys,
                    values,
                    block_tokens,
                    q_heads,
                    kv_heads,
                    head_dim
                ],
            )
        }
    }

    /// How attention of so many decode rows is cut.
    pub(super) fn attention_cut(&self, rows: usize) -> AttentionCut {
        let c = &self.weights.config;
        let places = AttentionPlaces::new(&self.kernels, self.multiprocessors, c.head_dim);
        AttentionCut::new(rows, attention_groups(c.num_heads, c.num_kv_heads), places, self.deterministic)
    }

    fn attend(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        let (c, b, s) = (&self.weights.config, &self.buffers, &self.state.args);
        let window = c.window(layer).map_or(0, |w| i32::try_from(w).unwrap_or(0));
        let scale = std::f32::consts::LOG2_E / (c.head_dim as f32).sqrt();
        let (q_heads, kv_heads) = (c.num_heads as i32, c.num_kv_heads as i32);
        if rows.decode > 0 {
            let cut = self.attention_cut(rows.decode);
            let arguments = DecodeArgs {
                qkv: b.qkv.at(0),
                keys: b.keys(layer),
                values: b.values(layer),
                out: b.attended.at(0),
                row_slot: rows.slots,
                row_position: rows.positions,
                tables: s.tables,
                parts: b.parts.at(0),
                arrived: b.arrived.at(0),
                table_width: s.table_width,
                block_tokens: BLOCK_TOKENS as i32,
                q_heads,
                kv_heads,
                window,
                scale,
            };
            let groups = attention_groups(c.num_heads, c.num_kv_heads);
            let grid = self.grid((groups, cut.parts, rows.decode), 128);
            let (kernel, shared) = match &self.kernels.attention_ring {
                Some(ring) if cut.ring => (ring, ring_shared_bytes(c.head_dim)),
                _ => (&self.kernels.attention_decode, 0),
            };
            // SAFETY: the arguments are those of decode attention.
            unsafe { kernel.launch(stream, Grid { shared, ..grid }, args![arguments])? };
        }
        if rows.num_tiles > 0
            && let (Some(kernel), Some(map)) = (&self.kernels.attention_prefill_sm90, b.kv_map)
        {
            let arguments = PrefillArgs90 {
                qkv: b.qkv.at(0),
                out: b.attended.at(0),
                tiles: rows.tiles,
                tables: s.tables,
                rows: b.kv_rows(layer),
                table_width: s.table_width,
                q_heads,
                kv_heads,
                window,
                scale,
            };
            let shared = prefill_sm90_shared_bytes(c.head_dim);
            let grid = Grid { shared, ..self.grid((c.num_heads, rows.num_tiles, 1), 384) };
            // SAFETY: the arguments are those of `attention_prefill_sm90`; tiles name rows of this step.
            unsafe { kernel.launch(stream, grid, args![map, arguments])? };
        } else if rows.num_tiles > 0 {
            let arguments = PrefillArgs {
                qkv: b.qkv.at(0),
                keys: b.keys(layer),
                values: b.values(layer),
                out: b.attended.at(0),
                tiles: rows.tiles,
                tables: s.tables,
                table_width: s.table_width,
                block_tokens: BLOCK_TOKENS as i32,
                q_heads,
                kv_heads,
                window,
                scale,
            };
            let shared = prefill_shared_bytes(c.head_dim);
            let grid = Grid { shared, ..self.grid((c.num_heads, rows.num_tiles, 1), 256) };
            // SAFETY: the arguments are those of `attention_prefill`; tiles name rows of this step.
            unsafe { self.kernels.attention_prefill.launch(stream, grid, args![arguments])? };
        }
        Ok(())
    }

    /// Logits of `count` rows into the logits' memory. `rows`: which ones, 0 for the first.
    pub(super) fn logits(&mut self, stream: &Stream, rows: u64, count: usize) -> Result<()> {
        let c = &self.weights.config;
        let (hidden, vocab) = (c.hidden_size, c.vocab_size);
        let stride = logits_stride(vocab);
        let (gathered, logits) = (self.buffers.gathered.at(0), self.buffers.logits.at(0));
        let (weight, norm) = (self.weights.head, self.weights.norm);
        if self.few(count) {
            let mut x = self.buffers.hidden.at(0);
            if rows != 0 {
                let (size, residual) = (hidden as i32, self.buffers.residual.at(0));
                // SAFETY: the arguments are those of `gather`.
                unsafe {
                    self.kernels.gather.launch(
                        stream,
                        self.grid((count, 1, 1), 128),
                        args![residual, rows, gathered, size],
                    )?;
                }
                x = gathered;
            }
            let l = Linear { weight, norm, n: vocab, k: hidden, out: Out::StoreF32 };
            return self.by_few(stream, l, count, (x, logits), stride);
        }
        // Behind the layers of a step of decode rows alone, the stream's copy is ready for the head.
        let ready = rows == 0 && self.streams(count);
        if !ready {
            self.norm(stream, norm, rows, gathered, count)?;
        }
        if self.streams(count) {
            let x = if ready { Activation::Hidden } else { Activation::Gathered };
            let (kind, matrix, rope) = (StreamKind::StoreF32, Matrix::Head, RopeArgs::default());
            let (out, n, k, rows) = (logits, vocab, hidden, count);
            return self.stream(stream, &StreamProduct { kind, matrix, x, out, n, k, rows, stride, rope });
        }
        let product = Product {
            kind: Kind::StoreF32,
            weight,
            x: gathered,
            out: logits,
            m: count,
            n: vocab,
            k: hidden,
            stride,
        };
        // SAFETY: the logits' memory has a row for each slot, and `count` is at most that.
        unsafe { self.gemm.run(stream, &product) }
    }

    /// Chooses tokens from the logits that are there, and ends the step.
    pub(super) fn sample(&self, stream: &Stream, s: &Samples) -> Result<()> {
        if s.count == 0 {
            let state = self.state.args;
            // SAFETY: the argument is that of `count_step`.
            return unsafe { self.kernels.count_step.launch(stream, self.grid((1, 1, 1), 1), args![state]) };
        }
        let arguments = SampleArgs {
            state: self.state.args,
            logits: self.buffers.logits.at(0),
            partials: self.buffers.partials.at(0),
            slots: s.slots,
            indices: s.indices,
            row_position: s.advance,
            results: s.results,
            stride: logits_stride(self.weights.config.vocab_size) as i32,
            chunks: SCAN_CHUNKS as i32,
            ring: s.ring as i32,
            max_samples: s.max_samples as i32,
        };
        // SAFETY: the arguments are those of both kernels; arrays have `count` entries.
        unsafe {
            self.kernels.scan_logits.launch(
                stream,
                self.grid((SCAN_CHUNKS, s.count, 1), 256),
                args![arguments],
            )?;
            self.kernels.choose.launch(stream, self.grid((s.count, 1, 1), 1024), args![arguments])
        }
    }

    /// Times cuBLASLt's algorithms for steps of so many rows. What lies in the activations is overwritten.
    pub(super) fn tune(
        &mut self,
        device: &crate::device::Device,
        stream: &Stream,
        rows: usize,
        samples: usize,
    ) -> Result<()> {
        let c = &self.weights.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let (q, qkv) = (c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
        let (w, b) = (self.weights.layers[0], &self.buffers);
        let p = |kind, weight, x: &crate::device::Buffer, out: &crate::device::Buffer, n, k| Product {
            kind,
            weight,
            x: x.at(0),
            out: out.at(0),
            m: rows,
            n,
            k,
            stride: n,
        };
        let mut products = Vec::new();
        if !self.few(rows) && !self.streams(rows) {
            products.extend([
                p(Kind::Store, w.qkv, &b.normed, &b.qkv, qkv, hidden),
                p(Kind::Add, w.o, &b.attended, &b.residual, hidden, q),
                p(Kind::Store, w.gate_up, &b.normed, &b.gate_up, 2 * inter, hidden),
                p(Kind::Add, w.down, &b.gated, &b.residual, hidden, inter),
            ]);
        }
        if !self.few(samples) && !self.streams(samples) {
            products.push(Product {
                m: samples,
                stride: logits_stride(c.vocab_size),
                ..p(Kind::StoreF32, self.weights.head, &b.gathered, &b.logits, c.vocab_size, hidden)
            });
        }
        for product in products {
            // SAFETY: all matrices have the sizes of the model.
            unsafe { self.gemm.tune(device, stream, &product)? };
        }
        Ok(())
    }
}
