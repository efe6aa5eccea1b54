//! The launches of a step: embedding, layers, logits, sampling.

use super::buffers::{Buffers, SCAN_CHUNKS};
use super::memory_plan::{BLOCK_TOKENS, logits_stride};
use super::options::EarlyLaunch;
use super::profile::Part;
use crate::device::{Grid, Stream, args};
use crate::error::Result;
use crate::gemm::{Gemm, Kind, Product};
use crate::kernels::{Kernels, few_rows_threads, prefill_shared_bytes, prefill_sm90_shared_bytes};
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

/// A matrix of a layer with what is fused around its product.
#[derive(Clone, Copy)]
struct Linear {
    weight: u64,
    /// Of the norm in front; 0 for none.
    norm: u64,
    n: usize,
    k: usize,
    out: Out,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Out {
    Store,
    StoreF32,
    Add,
    SiluMul,
}

/// How many parts a sequence's attention is split into at most, for so many rows: about eight blocks a
/// multiprocessor. Where results must not depend on the number of rows, always the same.
pub(super) fn attention_parts(
    rows: usize,
    groups: usize,
    multiprocessors: usize,
    deterministic: bool,
) -> usize {
    if deterministic {
        return 8;
    }
    (8 * multiprocessors).div_ceil((rows * groups).max(1)).clamp(1, 32)
}

/// Blocks of decode attention for one row and part: kv heads, and groups of more than 8 query heads several times.
pub(super) fn attention_groups(heads: usize, kv_heads: usize) -> usize {
    kv_heads * (heads / kv_heads).div_ceil(8)
}

impl Net {
    fn grid(&self, blocks: (usize, usize, usize), threads: usize) -> Grid {
        Grid { blocks, threads, shared: 0, early: self.early.rows }
    }

    /// Token vectors into the hidden stream.
    pub(super) fn embed(&self, stream: &Stream, rows: &Rows) -> Result<()> {
        let size = self.weights.config.hidden_size as i32;
        let (table, last, hidden) =
            (self.weights.embedding, self.state.args.last_token, self.buffers.hidden.at(0));
        let grid = self.grid((rows.count, 1, 1), 128);
        // SAFETY: the arguments are those of `embed`; all arrays have `rows.count` entries.
        unsafe {
            self.kernels.embed.launch(stream, grid, args![table, rows.tokens, rows.slots, last, hidden, size])
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
        let (residual, attended, gated) = (b.hidden.at(0), b.attended.at(0), b.gated.at(0));
        let (l, x, to) = match part {
            Part::Rope => return self.rope_write(stream, rows, layer),
            Part::Attention => return self.attend(stream, rows, layer),
            Part::Qkv => {
                let l = Linear { weight: w.qkv, norm: w.input_norm, n: qkv, k: hidden, out: Out::Store };
                (l, residual, b.qkv.at(0))
            }
            Part::Output => {
                (Linear { weight: w.o, norm: 0, n: hidden, k: q, out: Out::Add }, attended, residual)
            }
            Part::GateUp => {
                let l =
                    Linear { weight: w.gate_up, norm: w.post_norm, n: inter, k: hidden, out: Out::SiluMul };
                (l, residual, gated)
            }
            Part::Down => {
                (Linear { weight: w.down, norm: 0, n: hidden, k: inter, out: Out::Add }, gated, residual)
            }
        };
        self.linear(stream, l, rows.count, x, to)
    }

    /// A product with its norm in front and its epilogue behind: one launch for few rows, else three at most.
    fn linear(&mut self, stream: &Stream, l: Linear, rows: usize, x: u64, out: u64) -> Result<()> {
        if self.deterministic || rows <= self.skinny_rows.min(SKINNY_MAX) {
            return self.by_few(stream, l, rows, (x, out), l.n);
        }
        let mut from = x;
        if l.norm != 0 {
            from = self.buffers.normed.at(0);
            self.norm(stream, l.norm, x, 0, from, rows)?;
        }
        let product = |kind, n, out, stride| Product {
            kind,
            weight: l.weight,
            x: from,
            out,
            m: rows,
            n,
            k: l.k,
            stride,
        };
        match l.out {
            // SAFETY: the matrices have the sizes of the model, and rows for a whole step.
            Out::Store => unsafe { self.gemm.run(stream, &product(Kind::Store, l.n, out, l.n)) },
            // SAFETY: as above.
            Out::StoreF32 => unsafe { self.gemm.run(stream, &product(Kind::StoreF32, l.n, out, l.n)) },
            // SAFETY: as above.
            Out::Add => unsafe { self.gemm.run(stream, &product(Kind::Add, l.n, out, l.n)) },
            Out::SiluMul => {
                let both = self.buffers.gate_up.at(0);
                // SAFETY: as above.
                unsafe { self.gemm.run(stream, &product(Kind::Store, 2 * l.n, both, 2 * l.n))? };
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
        let bytes = if l.out == Out::StoreF32 { 4 } else { 2 };
        (0..rows).step_by(SKINNY_MAX).try_for_each(|first| {
            let (x, out) = (x + (first * l.k * 2) as u64, out + (first * stride * bytes) as u64);
            self.few_rows(stream, l, SKINNY_MAX.min(rows - first), (x, out), stride)
        })
    }

    /// One launch for a product of at most 16 rows.
    fn few_rows(
        &self,
        stream: &Stream,
        l: Linear,
        rows: usize,
        (x, out): (u64, u64),
        stride: usize,
    ) -> Result<()> {
        let few = &self.kernels.few;
        let pair = match l.out {
            Out::Store => few.norm,
            Out::StoreF32 => few.norm_f32,
            Out::SiluMul => few.norm_silu_mul,
            Out::Add => few.add,
        };
        let function = pair[usize::from(rows > 8)];
        let outputs = if l.out == Out::SiluMul { 8 } else { 16 };
        let tiles = l.n.div_ceil(outputs);
        let eps = self.weights.config.rms_norm_eps;
        let (n, k, rows, stride) = (l.n as i32, l.k as i32, rows as i32, stride as i32);
        let late = i32::from(self.early.late);
        let grid = Grid {
            early: self.early.products,
            ..self.grid((tiles, 1, 1), few_rows_threads(l.out == Out::Add))
        };
        // SAFETY: the arguments are those of the `skinny` kernels; matrices have the sizes of the model.
        unsafe {
            function.launch(stream, grid, args![l.weight, x, l.norm, eps, out, n, k, rows, stride, late])
        }
    }

    /// Norm of all rows, or of those at `rows`.
    fn norm(&self, stream: &Stream, weight: u64, x: u64, rows: u64, out: u64, count: usize) -> Result<()> {
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

    fn attend(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        let (c, b, s) = (&self.weights.config, &self.buffers, &self.state.args);
        let window = c.window(layer).map_or(0, |w| i32::try_from(w).unwrap_or(0));
        let scale = std::f32::consts::LOG2_E / (c.head_dim as f32).sqrt();
        let (q_heads, kv_heads) = (c.num_heads as i32, c.num_kv_heads as i32);
        if rows.decode > 0 {
            let groups = attention_groups(c.num_heads, c.num_kv_heads);
            let parts = attention_parts(rows.decode, groups, self.multiprocessors, self.deterministic);
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
            let grid = self.grid((groups, parts, rows.decode), 128);
            // SAFETY: the arguments are those of `attention_decode`.
            unsafe { self.kernels.attention_decode.launch(stream, grid, args![arguments])? };
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
        let (from, gathered, logits) =
            (self.buffers.hidden.at(0), self.buffers.gathered.at(0), self.buffers.logits.at(0));
        let (weight, norm) = (self.weights.head, self.weights.norm);
        if self.deterministic || count <= self.skinny_rows.min(SKINNY_MAX) {
            let mut x = from;
            if rows != 0 {
                let size = hidden as i32;
                // SAFETY: the arguments are those of `gather`.
                unsafe {
                    self.kernels.gather.launch(
                        stream,
                        self.grid((count, 1, 1), 128),
                        args![from, rows, gathered, size],
                    )?;
                }
                x = gathered;
            }
            let l = Linear { weight, norm, n: vocab, k: hidden, out: Out::StoreF32 };
            return self.by_few(stream, l, count, (x, logits), stride);
        }
        self.norm(stream, norm, from, rows, gathered, count)?;
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
        if rows > self.skinny_rows {
            products.extend([
                p(Kind::Store, w.qkv, &b.normed, &b.qkv, qkv, hidden),
                p(Kind::Add, w.o, &b.attended, &b.hidden, hidden, q),
                p(Kind::Store, w.gate_up, &b.normed, &b.gate_up, 2 * inter, hidden),
                p(Kind::Add, w.down, &b.gated, &b.hidden, hidden, inter),
            ]);
        }
        if samples > self.skinny_rows {
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
