//! Attention over paged keys and values: what is written before it, how it is cut, and its launches.

use super::forward::{Net, Rows};
use super::memory_plan::BLOCK_TOKENS;
use crate::device::{Function, Grid, Stream, TensorMap, args};
use crate::error::Result;
use crate::kernels::{
    Kernels, prefill_shared_bytes, prefill_sm90_shared_bytes, ring_blocks, ring_shared_bytes,
};

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
    pub(super) fn rope_write(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
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

    /// Attention of a step's rows: those that decode, and the tiles of prompts.
    pub(super) fn attend(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        if rows.decode > 0 {
            self.attend_decode(stream, rows, layer)?;
        }
        match (&self.kernels.attention_prefill_sm90, self.buffers.kv_map) {
            _ if rows.num_tiles == 0 => Ok(()),
            (Some(kernel), Some(map)) => self.attend_prompts_sm90(stream, rows, layer, kernel, map),
            _ => self.attend_prompts(stream, rows, layer),
        }
    }

    /// The layer's window in positions, 0 for none, and the scale of scores for powers of two.
    fn window_and_scale(&self, layer: usize) -> (i32, f32) {
        let c = &self.weights.config;
        let window = c.window(layer).map_or(0, |w| i32::try_from(w).unwrap_or(0));
        (window, std::f32::consts::LOG2_E / (c.head_dim as f32).sqrt())
    }

    fn attend_decode(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        let (c, b, s) = (&self.weights.config, &self.buffers, &self.state.args);
        let (window, scale) = self.window_and_scale(layer);
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
            q_heads: c.num_heads as i32,
            kv_heads: c.num_kv_heads as i32,
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
        unsafe { kernel.launch(stream, Grid { shared, ..grid }, args![arguments]) }
    }

    fn attend_prompts_sm90(
        &self,
        stream: &Stream,
        rows: &Rows,
        layer: usize,
        kernel: &Function,
        map: TensorMap,
    ) -> Result<()> {
        let (c, b, s) = (&self.weights.config, &self.buffers, &self.state.args);
        let (window, scale) = self.window_and_scale(layer);
        let arguments = PrefillArgs90 {
            qkv: b.qkv.at(0),
            out: b.attended.at(0),
            tiles: rows.tiles,
            tables: s.tables,
            rows: b.kv_rows(layer),
            table_width: s.table_width,
            q_heads: c.num_heads as i32,
            kv_heads: c.num_kv_heads as i32,
            window,
            scale,
        };
        let shared = prefill_sm90_shared_bytes(c.head_dim);
        let grid = Grid { shared, ..self.grid((c.num_heads, rows.num_tiles, 1), 384) };
        // SAFETY: the arguments are those of `attention_prefill_sm90`; tiles name rows of this step.
        unsafe { kernel.launch(stream, grid, args![map, arguments]) }
    }

    fn attend_prompts(&self, stream: &Stream, rows: &Rows, layer: usize) -> Result<()> {
        let (c, b, s) = (&self.weights.config, &self.buffers, &self.state.args);
        let (window, scale) = self.window_and_scale(layer);
        let arguments = PrefillArgs {
            qkv: b.qkv.at(0),
            keys: b.keys(layer),
            values: b.values(layer),
            out: b.attended.at(0),
            tiles: rows.tiles,
            tables: s.tables,
            table_width: s.table_width,
            block_tokens: BLOCK_TOKENS as i32,
            q_heads: c.num_heads as i32,
            kv_heads: c.num_kv_heads as i32,
            window,
            scale,
        };
        let shared = prefill_shared_bytes(c.head_dim);
        let grid = Grid { shared, ..self.grid((c.num_heads, rows.num_tiles, 1), 256) };
        // SAFETY: the arguments are those of `attention_prefill`; tiles name rows of this step.
        unsafe { self.kernels.attention_prefill.launch(stream, grid, args![arguments]) }
    }
}
