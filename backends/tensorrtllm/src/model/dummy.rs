//! Weights of no meaning, made on the GPU: the ones that the CPU would make, without the time that it takes.

use trireme_llm::checkpoint::{DummyNumbers, WeightType};

use super::WeightLayout;
use crate::device::{Buffer, Grid, Stream, args};
use crate::error::Result;
use crate::kernels::Kernels;

/// The weights of `load_format: dummy` for a checkpoint whose own type is `ty`.
pub(super) fn fill(
    stream: &Stream,
    kernels: &Kernels,
    layout: &WeightLayout,
    arena: &Buffer,
    ty: WeightType,
) -> Result<()> {
    for piece in &layout.pieces {
        let mut at = piece.offset;
        for part in &piece.parts {
            let numbers =
                DummyNumbers::of(&part.name).unwrap_or(DummyNumbers { seed: 0, start: 0, scale: 0.0 });
            fill_with(stream, kernels, arena.at(at), part.elements, numbers, ty)?;
            at += part.elements * 2;
        }
    }
    stream.synchronize()
}

/// Queues `elements` numbers from `to` on, bf16.
pub fn fill_with(
    stream: &Stream,
    kernels: &Kernels,
    to: u64,
    elements: usize,
    numbers: DummyNumbers,
    ty: WeightType,
) -> Result<()> {
    let DummyNumbers { seed, start, scale } = numbers;
    let (count, halves) = (elements as u64, i32::from(ty == WeightType::F16));
    let blocks = elements.div_ceil(4 * 256 * 4).clamp(1, 1 << 16);
    let grid = Grid { blocks: (blocks, 1, 1), threads: 256, ..Grid::default() };
    // SAFETY: the arguments are those of `fill_dummy`; the caller's range holds the elements.
    unsafe { kernels.fill_dummy.launch(stream, grid, args![to, count, start, seed, scale, halves]) }
}
