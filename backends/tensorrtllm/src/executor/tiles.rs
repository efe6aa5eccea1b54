//! Products of more than 128 rows on Hopper.

use super::buffers::Buffers;
use super::forward::Net;
use super::memory_plan::Widths;
use super::streams::{Activation, Matrix, StreamProduct};
use crate::device::{Buffer, Grid, Stream, TensorMap, args};
use crate::error::{CudaError, Result};
use crate::kernels::{Place, SQUARES, StreamKind, TILE_GROUP, TILE_ROWS, TILE_THREADS, TileKind, TilePlan, TileSize, TilesArgs};
use crate::model::Weights;

/// All matrices that these products read, as the copy engine sees them.
pub(super) struct TileMaps {
    /// By layer, place and size.
    layers: Vec<[[TensorMap; TileSize::COUNT]; 4]>,
    /// Of the residual stream's copy, attention's result, the gated product and a norm's result.
    rows: [TensorMap; 4],
}

impl TileMaps {
    pub(super) fn new(w: &Weights, b: &Buffers, max_rows: usize) -> Result<Self> {
        let c = &w.config;
        let (widths, hidden, inter) = (Widths::new(c), c.hidden_size, c.intermediate_size);
        let weight = |at, n, k| -> Result<_> {
            let [a, b, c, d] = TileSize::ALL.map(|size| TensorMap::of_rows(at, k, n, size.half()));
            Ok([a?, b?, c?, d?])
        };
        let layers = w.layers.iter().map(|l| {
            Ok([
                weight(l.qkv, widths.qkv, hidden)?,
                weight(l.o, hidden, widths.attended)?,
                weight(l.gate_up, 2 * inter, hidden)?,
                weight(l.down, hidden, inter)?,
            ])
        });
        let rows = |buffer: &Buffer, width| TensorMap::of_rows(buffer.at(0), width, max_rows, TILE_ROWS);
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            rows: [
                rows(&b.hidden, hidden)?,
                rows(&b.attended, widths.attended)?,
                rows(&b.gated, inter)?,
                rows(&b.normed, hidden)?,
            ],
        })
    }
}

impl Net {
    /// Whether the sizes of this model are such that these products can compute it: rows are written in pieces of 16 bytes.
    pub(super) fn tiles_fit(&self) -> bool {
        let widths = Widths::new(&self.weights.config);
        let outputs = [widths.hidden, widths.qkv, widths.intermediate];
        outputs.iter().all(|n| n.is_multiple_of(8)) && widths.hidden.div_ceil(128) <= SQUARES
    }

    /// One launch for a product of any number of rows. `normed`: the norm in front had a launch of its own.
    pub(super) fn tiles(&self, stream: &Stream, p: &StreamProduct, normed: bool) -> Result<()> {
        let none = || CudaError::Unsupported(format!("there is no product of {} rows in tiles", p.rows));
        let (Some(maps), Some(kernels), Matrix::Layer(layer, place)) =
            (&self.tile_maps, &self.kernels.tiles, p.matrix)
        else {
            return Err(none());
        };
        let (w, hidden) = (&self.weights, self.weights.config.hidden_size);
        let plan_of = |kind, n, k| TilePlan::new(kind, p.rows, n, k, self.multiprocessors);
        // Sums of squares that the last one which added to the residual stream left.
        let left = |k| plan_of(TileKind::Add, hidden, k).columns;
        let widths = Widths::new(&w.config);
        let l = &w.layers[layer];
        let behind = w.layers.get(layer + 1).map_or(w.norm, |next| next.input_norm);
        let (num_squares, gain) = match place {
            _ if normed => (0, 0),
            Place::Qkv if layer == 0 => (1, 0),
            Place::Qkv => (left(widths.intermediate), 0),
            Place::GateUp => (left(widths.attended), 0),
            Place::Output => (0, l.post_norm),
            Place::Down => (0, behind),
        };
        let kind = match p.kind {
            StreamKind::Add => TileKind::Add,
            StreamKind::SiluMul => TileKind::SiluMul,
            StreamKind::Store => TileKind::Store,
            _ => return Err(none()),
        };
        let x = match p.x {
            _ if normed => maps.rows[3],
            Activation::Hidden => maps.rows[0],
            Activation::Attended => maps.rows[1],
            Activation::Gated => maps.rows[2],
            Activation::Gathered => return Err(none()),
        };
        let plan = plan_of(kind, p.n, p.k);
        let function = kernels.function(kind, &plan).ok_or_else(none)?;
        let weight = maps.layers[layer][place as usize][plan.size];
        let squares = self.buffers.squares.at(0);
        let arguments = TilesArgs {
            out: p.out,
            squares: if num_squares > 0 { squares } else { 0 },
            copy: if kind == TileKind::Add { self.buffers.hidden.at(0) } else { 0 },
            gain,
            new_squares: squares,
            n: p.n as i32,
            k: p.k as i32,
            steps: p.k.div_ceil(64) as i32,
            rows: p.rows as i32,
            stride: p.stride as i32,
            num_squares: num_squares as i32,
            eps: w.config.rms_norm_eps,
            pairs: plan.pairs as i32,
            columns: plan.columns as i32,
            group: TILE_GROUP.min(plan.pairs) as i32,
        };
        let cluster = 2 * plan.parts;
        let grid = Grid {
            blocks: (plan.clusters(self.multiprocessors), cluster, 1),
            threads: TILE_THREADS,
            shared: TileSize::ALL[plan.size].shared_bytes(),
            early: self.early.products,
            cluster,
        };
        // SAFETY: the arguments are those of the `tiles` kernels; the maps are of matrices with the model's sizes, and
        // activations have rows for a whole step.
        unsafe { function.launch(stream, grid, args![weight, x, arguments]) }
    }
}
