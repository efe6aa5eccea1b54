//! Gate, up and SiLU of more than 128 rows on Hopper: `kernels/gate_up_sm90.cu`.

use crate::device::Function;
use crate::error::Result;

/// Rows of a tile; the two blocks of a cluster take twice as many.
pub const TILE_ROWS: usize = 128;

/// Threads of a block: a warpgroup that copies, two that multiply.
pub const TILE_THREADS: usize = 3 * 128;

/// Pairs of tiles along the rows that are taken before the next outputs.
const GROUP: usize = 8;

/// Steps of k that are on their way.
const STAGES: usize = 4;

/// `TilesArgs` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TilesArgs {
    pub out: u64,
    pub n: i32,
    pub steps: i32,
    pub rows: i32,
    pub pairs: i32,
    pub columns: i32,
    pub group: i32,
}

/// Tiles of so many outputs, of gate and up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileSize {
    outputs: usize,
    /// Time of a step of k, and of what comes behind the last one, beside those of the other size, as measured on an H200.
    step: usize,
    end: usize,
}

const SIZES: [TileSize; 2] =
    [TileSize { outputs: 256, step: 116, end: 290 }, TileSize { outputs: 224, step: 100, end: 270 }];

impl TileSize {
    pub const COUNT: usize = SIZES.len();
    pub const ALL: [Self; Self::COUNT] = SIZES;

    /// Outputs that a tile writes, and rows of each of its two boxes of weights.
    pub fn half(&self) -> usize {
        self.outputs / 2
    }

    /// Shared memory of a block: the ring, eight warps' rows on their way out, two barriers a stage.
    pub fn shared_bytes(&self) -> usize {
        STAGES * ((TILE_ROWS + self.outputs) * 128 + 16) + TILE_ROWS * (self.outputs + 16)
    }
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePlan {
    /// Which of [`TileSize::ALL`].
    pub size: usize,
    /// Pairs of tiles along the rows, and tiles along the outputs.
    pub pairs: usize,
    pub columns: usize,
}

impl TilePlan {
    /// Tiles of a size.
    pub fn of(size: usize, rows: usize, n: usize) -> Self {
        Self { size, pairs: rows.div_ceil(2 * TILE_ROWS), columns: n.div_ceil(SIZES[size].half()) }
    }

    /// What needs least time: one wave of tiles comes after another, and the last one takes as long if it is not full.
    pub fn best(rows: usize, n: usize, k: usize, multiprocessors: usize) -> Self {
        let cost = |plan: &Self| {
            let size = SIZES[plan.size];
            let waves = (plan.pairs * plan.columns).div_ceil(plan.clusters(multiprocessors));
            waves * (k.div_ceil(64) * size.step + size.end)
        };
        let [a, b] = [0, 1].map(|size| Self::of(size, rows, n));
        if cost(&b) < cost(&a) { b } else { a }
    }

    /// Clusters of two blocks that are launched: as many as find places.
    pub fn clusters(&self, multiprocessors: usize) -> usize {
        (self.pairs * self.columns).min((multiprocessors / 2).max(1))
    }

    /// Pairs that are taken together.
    pub fn group(&self) -> usize {
        GROUP.min(self.pairs)
    }
}

/// The kernels, by size.
#[derive(Clone, Copy)]
pub struct Tiles([Function; SIZES.len()]);

impl Tiles {
    pub(super) fn load(of: &impl Fn(&str, &str) -> Result<Function>) -> Result<Self> {
        let [a, b] = SIZES.map(|size| -> Result<Function> {
            let function = of("gate_up_sm90", &format!("gate_up_tiles{}", size.outputs))?;
            function.allow_shared(size.shared_bytes())?;
            Ok(function)
        });
        Ok(Self([a?, b?]))
    }

    pub fn function(&self, plan: &TilePlan) -> Function {
        self.0[plan.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fits_on_a_multiprocessor() {
        for size in TileSize::ALL {
            assert!(size.shared_bytes() <= 227 << 10, "{size:?}");
        }
    }

    #[test]
    fn tiles_are_cut_so_that_the_last_wave_is_full() {
        // Llama-3.1-8B, a step of 256 rows: 128 pairs are two waves of 66, as 112 are.
        let plan = TilePlan::best(256, 14_336, 4096, 132);
        assert_eq!((plan.size, plan.pairs, plan.columns, plan.clusters(132)), (1, 1, 128, 66));
        // Llama-3.2-1B: 64 of the larger tiles are one wave, 74 of the smaller ones two.
        let plan = TilePlan::best(200, 8192, 2048, 132);
        assert_eq!((plan.size, plan.columns, plan.clusters(132), plan.group()), (0, 64, 64, 1));
        // Few multiprocessors, few outputs.
        assert_eq!(TilePlan::best(129, 8, 64, 1).clusters(1), 1);
    }
}
