//! The products of more than 128 rows on Hopper: `kernels/linear_tiles_sm90.cu`.

use crate::device::Function;
use crate::error::Result;

/// Rows of a tile; the two blocks of a cluster take twice as many.
pub const TILE_ROWS: usize = 128;

/// Pairs of tiles along the rows that are taken before the next outputs.
pub const TILE_GROUP: usize = 8;

/// Threads of a block: a warpgroup that copies, two that multiply.
pub const TILE_THREADS: usize = 3 * 128;

/// `TilesArgs` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct TilesArgs {
    pub out: u64,
    pub squares: u64,
    pub copy: u64,
    pub gain: u64,
    pub new_squares: u64,
    pub n: i32,
    pub k: i32,
    pub steps: i32,
    pub rows: i32,
    pub stride: i32,
    pub num_squares: i32,
    pub eps: f32,
    pub pairs: i32,
    pub columns: i32,
    pub group: i32,
}

/// What becomes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileKind {
    Store,
    Add,
    SiluMul,
}

const NAMES: [&str; 3] = ["store", "add", "silu_mul"];

/// Outputs of a tile (with SiLU, of gate and up together), and steps of k that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileSize {
    pub outputs: usize,
    stages: usize,
}

const SIZES: [TileSize; 4] = [
    TileSize { outputs: 256, stages: 4 },
    TileSize { outputs: 224, stages: 4 },
    TileSize { outputs: 192, stages: 5 },
    TileSize { outputs: 128, stages: 6 },
];

impl TileSize {
    pub const COUNT: usize = SIZES.len();
    pub const ALL: [Self; Self::COUNT] = SIZES;

    /// Shared memory of a block: the ring, eight warps' rows on their way out, two barriers a stage.
    pub fn shared_bytes(&self) -> usize {
        self.stages * ((TILE_ROWS + self.outputs) * 128 + 16) + TILE_ROWS * (self.outputs + 16)
    }

    /// Outputs of one of the two boxes of weights.
    pub fn half(&self) -> usize {
        self.outputs / 2
    }
}

impl TileKind {
    pub const ALL: [Self; 3] = [Self::Store, Self::Add, Self::SiluMul];

    /// Whether there is such a kernel. Those that share k end in another way.
    fn exists(self, size: &TileSize, shares: bool) -> bool {
        match self {
            Self::SiluMul => !shares && size.outputs >= 192,
            Self::Store | Self::Add => size.outputs != 224,
        }
    }
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePlan {
    /// Which of [`TileSize::ALL`].
    pub size: usize,
    /// Clusters that share k.
    pub parts: usize,
    /// Pairs of tiles along the rows, and tiles along the outputs.
    pub pairs: usize,
    pub columns: usize,
}

impl TilePlan {
    /// What the tensor cores need least time for: a tile's steps, one wave of tiles after another.
    pub fn new(kind: TileKind, rows: usize, n: usize, k: usize, multiprocessors: usize) -> Self {
        let (pairs, steps, places) = (rows.div_ceil(2 * TILE_ROWS), k.div_ceil(64), multiprocessors / 2);
        let mut best = (usize::MAX, Self { size: 0, parts: 1, pairs, columns: 1 });
        for (number, size) in SIZES.iter().enumerate() {
            let own = if kind == TileKind::SiluMul { size.half() } else { size.outputs };
            let columns = n.div_ceil(own);
            for parts in [1, 2, 4] {
                let clusters = pairs * columns * parts;
                // Those that share k must be there at once, and a cluster is of eight blocks at most.
                let fits = parts == 1 || clusters <= places && steps >= 4 * parts;
                if !fits || !kind.exists(size, parts > 1) {
                    continue;
                }
                let waves = clusters.div_ceil(places.max(1));
                let tile = steps.div_ceil(parts) * step_cycles(size.outputs) + end_cycles(size.outputs, parts);
                if waves * tile < best.0 {
                    best = (waves * tile, Self { size: number, parts, pairs, columns });
                }
            }
        }
        best.1
    }

    /// Clusters of two blocks that are launched: at most as many as find places.
    pub fn clusters(&self, multiprocessors: usize) -> usize {
        let tiles = self.pairs * self.columns;
        if self.parts > 1 { tiles } else { tiles.min((multiprocessors / 2).max(1)) }
    }
}

/// Cycles of a step of 64: that of the tensor cores, or of what must come into shared memory meanwhile.
fn step_cycles(outputs: usize) -> usize {
    (4 * outputs).max((TILE_ROWS * 128 + outputs * 64) / 36)
}

/// Cycles in which a tile's results are written and nothing is multiplied.
fn end_cycles(outputs: usize, parts: usize) -> usize {
    if parts > 1 { 6000 + outputs * 10 } else { 1000 + outputs * 6 }
}

/// The kernels, by kind, size and whether they share k.
#[derive(Clone)]
pub struct Tiles([[[Option<Function>; 2]; SIZES.len()]; NAMES.len()]);

impl Tiles {
    pub(super) fn load(of: &impl Fn(&str, &str) -> Result<Function>) -> Result<Self> {
        let mut all = [[[None; 2]; SIZES.len()]; NAMES.len()];
        for kind in TileKind::ALL {
            for (number, size) in SIZES.iter().enumerate() {
                for shares in [false, true] {
                    if kind.exists(size, shares) {
                        let end = if shares { "_split" } else { "" };
                        let name = format!("tiles{}_{}{end}", size.outputs, NAMES[kind as usize]);
                        let function = of("linear_tiles_sm90", &name)?;
                        function.allow_shared(size.shared_bytes())?;
                        all[kind as usize][number][usize::from(shares)] = Some(function);
                    }
                }
            }
        }
        Ok(Self(all))
    }

    pub fn function(&self, kind: TileKind, plan: &TilePlan) -> Option<Function> {
        self.0[kind as usize][plan.size][usize::from(plan.parts > 1)]
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
        let plan = |kind, rows, n, k| TilePlan::new(kind, rows, n, k, 132);
        // Llama-3.1-8B, a step of 256 rows: 128 pairs are two waves of 66, which 112 would not be.
        let gate_up = plan(TileKind::SiluMul, 256, 14_336, 4096);
        assert_eq!((TileSize::ALL[gate_up.size].outputs, gate_up.columns, gate_up.parts), (224, 128, 1));
        let down = plan(TileKind::Add, 256, 4096, 14_336);
        assert_eq!((TileSize::ALL[down.size].outputs, down.columns, down.parts), (256, 16, 4));
        // Many rows: the largest tiles, which ask least of the second-level cache.
        for (kind, n, k) in [
            (TileKind::Store, 6144, 4096),
            (TileKind::Add, 4096, 4096),
            (TileKind::SiluMul, 14_336, 4096),
            (TileKind::Add, 4096, 14_336),
        ] {
            let plan = plan(kind, 8192, n, k);
            assert_eq!((TileSize::ALL[plan.size].outputs, plan.parts, plan.pairs), (256, 1, 32));
            assert_eq!(plan.clusters(132), 66);
        }
    }
}
