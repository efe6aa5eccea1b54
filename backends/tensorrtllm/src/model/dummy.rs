//! Weights of no meaning, made on the GPU: what measuring needs instead of gigabytes from a disk.

use super::WeightLayout;
use crate::device::{Buffer, Grid, Stream, args};
use crate::error::Result;
use crate::kernels::Kernels;

/// Norms become ones; matrices get numbers whose products keep the size of their input.
pub(super) fn fill(
    stream: &Stream,
    kernels: &Kernels,
    layout: &WeightLayout,
    arena: &Buffer,
    seed: u64,
) -> Result<()> {
    for (i, piece) in layout.pieces.iter().enumerate() {
        let (mean, deviation) =
            if piece.fan_in == 0 { (1.0f32, 0.0f32) } else { (0.0, (piece.fan_in as f32).sqrt().recip()) };
        let to = arena.at(piece.offset);
        let count = piece.elements as u64;
        let seed = seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let blocks = piece.elements.div_ceil(256 * 16).clamp(1, 1 << 16);
        let grid = Grid { blocks: (blocks, 1, 1), threads: 256, shared: 0, early: false };
        // SAFETY: the arguments are those of `fill_random`; the piece lies in the arena.
        unsafe { kernels.fill_random.launch(stream, grid, args![to, count, seed, mean, deviation])? };
    }
    stream.synchronize()
}
