//! Gate, up and SiLU of more than 128 rows on Hopper.

use super::buffers::Buffers;
use super::forward::Net;
use crate::device::{Grid, Stream, TensorMap, args};
use crate::error::{CudaError, Result};
use crate::kernels::{TILE_ROWS, TILE_THREADS, TilePlan, TileSize, TilesArgs};
use crate::model::Weights;

/// The matrices of these products, as the copy engine sees them.
pub(super) struct TileMaps {
    /// Of gate and up, by layer and size of tile.
    layers: Vec<[TensorMap; TileSize::COUNT]>,
    /// A norm's result.
    rows: TensorMap,
}

impl TileMaps {
    pub(super) fn new(w: &Weights, b: &Buffers, max_rows: usize) -> Result<Self> {
        let (hidden, outputs) = (w.config.hidden_size, 2 * w.config.intermediate_size);
        let layers = w.layers.iter().map(|l| {
            let [a, b] = TileSize::ALL.map(|s| TensorMap::of_rows(l.gate_up, hidden, outputs, s.half()));
            Ok([a?, b?])
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            rows: TensorMap::of_rows(b.normed.at(0), hidden, max_rows, TILE_ROWS)?,
        })
    }
}

impl Net {
    /// Whether this model's gate and up can be computed so: results are written in pieces of 16 bytes.
    pub(super) fn has_tiles(&self) -> bool {
        self.tile_maps.is_some() && self.weights.config.intermediate_size.is_multiple_of(8)
    }

    /// Gate, up and their product for any number of rows, behind the norm.
    pub(super) fn gate_up_in_tiles(&self, stream: &Stream, layer: usize, rows: usize) -> Result<()> {
        let (Some(maps), Some(kernels)) = (&self.tile_maps, &self.kernels.tiles) else {
            let text = "there are no products in tiles on this GPU".to_owned();
            return Err(CudaError::Unsupported(text));
        };
        let c = &self.weights.config;
        let plan = TilePlan::best(rows, c.intermediate_size, c.hidden_size, self.multiprocessors);
        let (weight, x) = (maps.layers[layer][plan.size], maps.rows);
        let arguments = TilesArgs {
            out: self.buffers.gated.at(0),
            n: c.intermediate_size as i32,
            steps: c.hidden_size.div_ceil(64) as i32,
            rows: rows as i32,
            pairs: plan.pairs as i32,
            columns: plan.columns as i32,
            group: plan.group() as i32,
        };
        let grid = Grid {
            blocks: (plan.clusters(self.multiprocessors), 2, 1),
            threads: TILE_THREADS,
            shared: TileSize::ALL[plan.size].shared_bytes(),
            early: self.early.products,
            cluster: 2,
        };
        // SAFETY: the arguments are those of the kernels; the maps are of matrices with the model's sizes, and activations
        // have rows for a whole step.
        unsafe { kernels.function(&plan).launch(stream, grid, args![weight, x, arguments]) }
    }
}
