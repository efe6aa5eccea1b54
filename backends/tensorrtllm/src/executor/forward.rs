//! The launches of a step: embedding and layers.

use super::buffers::Buffers;
use super::linear::{Linear, Out};
use super::options::EarlyLaunch;
use super::profile::Part;
use super::streams::StreamMaps;
use super::tiles::TileMaps;
use super::ways::Ways;
use crate::device::{Grid, Stream, args};
use crate::error::Result;
use crate::gemm::Gemm;
use crate::kernels::{Kernels, Place};
use crate::model::Weights;
use crate::state::DeviceState;
use crate::tuning::{Products, Way};

/// The model and all it computes with.
pub(super) struct Net {
    pub(super) kernels: Kernels,
    pub(super) weights: Weights,
    pub(super) gemm: Gemm,
    pub(super) buffers: Buffers,
    pub(super) state: DeviceState,
    /// Of products on Hopper.
    pub(super) maps: Option<StreamMaps>,
    /// Of gate and up of more rows.
    pub(super) tile_maps: Option<TileMaps>,
    /// What the clock has chosen.
    pub(super) ways: Ways,
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

impl Rows {
    /// Rows that nothing is known of but how many there are: their products can be timed, and nothing else be done with them.
    pub(super) fn without_slots(count: usize) -> Self {
        Self { count, decode: 0, tiles: 0, num_tiles: 0, tokens: 0, slots: 0, positions: 0 }
    }
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

impl Net {
    pub(super) fn grid(&self, blocks: (usize, usize, usize), threads: usize) -> Grid {
        Grid { blocks, threads, early: self.early.rows, ..Grid::default() }
    }

    /// Token vectors into the hidden stream.
    pub(super) fn embed(&self, stream: &Stream, rows: &Rows) -> Result<()> {
        let size = self.weights.config.hidden_size as i32;
        let (table, last) = (self.weights.embedding, self.state.args.last_token);
        let (residual, hidden) = (self.buffers.residual.at(0), self.buffers.hidden.at(0));
        let squares = self.buffers.squares.at(0);
        let gain = match self.weights.layers.first() {
            Some(layer) if self.way(Products::Layers, rows.count) == Way::Stream => layer.input_norm,
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
        self.first_layers(stream, rows, self.weights.config.num_layers)
    }

    /// The first `count` layers.
    pub(super) fn first_layers(&mut self, stream: &Stream, rows: &Rows, count: usize) -> Result<()> {
        for layer in 0..count {
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
        match self.way(Products::Layers, rows.count) {
            Way::Stream => return self.stream(stream, &self.layer_product(rows, layer, place)),
            Way::Gated if place == Place::GateUp => {
                self.norm(stream, w.post_norm, 0, normed, rows.count)?;
                return self.gate_up_in_tiles(stream, layer, rows.count);
            }
            Way::Few | Way::Gated | Way::Library => {}
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
}
