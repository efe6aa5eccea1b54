//! From the mapped checkpoint to the GPU: converted by all cores into pinned memory, copied while the next part is
//! converted.

use half::bf16;
use trireme_llm::checkpoint::{Checkpoint, RopeLayout, Weight, WeightType};

use super::WeightLayout;
use crate::device::{Buffer, Device, Event, Pinned, Stream};
use crate::error::{CudaError, Result};

/// Bytes of one of the two staging buffers.
const STAGING: usize = 32 << 20;

pub(super) fn fill(
    device: &Device,
    stream: &Stream,
    checkpoint: &Checkpoint,
    layout: &WeightLayout,
    arena: &Buffer,
) -> Result<()> {
    let interleaved = checkpoint.rope_layout == RopeLayout::Interleaved;
    let mut staging = Staging::new(device)?;
    for piece in &layout.pieces {
        let mut at = piece.offset;
        for part in &piece.parts {
            let weight = checkpoint.weight(&part.name)?;
            let head_dim = (part.rotary && interleaved).then_some(layout.head_dim);
            staging.send(stream, weight, head_dim, arena, at)?;
            at += part.elements * 2;
        }
    }
    stream.synchronize()
}

/// Takes bf16 bytes as they are.
pub(super) fn fill_from(
    stream: &Stream,
    bytes: &dyn Fn(&str) -> Option<Vec<u8>>,
    layout: &WeightLayout,
    arena: &Buffer,
) -> Result<()> {
    for piece in &layout.pieces {
        let mut at = piece.offset;
        for part in &piece.parts {
            let found = bytes(&part.name).filter(|b| b.len() == part.elements * 2);
            let found = found.ok_or_else(|| CudaError::Unsupported(format!("no tensor '{}'", part.name)))?;
            arena.write(at, &found, stream)?;
            at += found.len();
        }
    }
    Ok(())
}

/// Two buffers that take turns: one is filled while the other is copied.
struct Staging {
    buffers: [(Pinned, Event); 2],
    turn: usize,
    threads: usize,
}

impl Staging {
    fn new(device: &Device) -> Result<Self> {
        let buffer = || Ok::<_, CudaError>((Pinned::new(device, STAGING)?, Event::new(device)?));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        Ok(Self { buffers: [buffer()?, buffer()?], turn: 0, threads })
    }

    fn send(
        &mut self,
        stream: &Stream,
        weight: &Weight,
        head_dim: Option<usize>,
        arena: &Buffer,
        offset: usize,
    ) -> Result<()> {
        // A vector of heads (a bias, a norm) is permuted by element: as a matrix of one column.
        let (rows, cols) = match head_dim {
            Some(_) if weight.shape.len() == 1 => (weight.num_elements(), 1),
            _ => (weight.rows(), weight.cols()),
        };
        let whole = (cols != weight.cols()).then(|| weight.to_f32());
        let per_turn = (STAGING / (cols * 2)).max(1);
        for first in (0..rows).step_by(per_turn) {
            let count = per_turn.min(rows - first);
            let (pinned, copied) = &mut self.buffers[self.turn];
            self.turn ^= 1;
            copied.wait()?;
            let out = &mut pinned.bytes_mut()[..count * cols * 2];
            let share = count.div_ceil(self.threads).max(1);
            let whole = whole.as_deref();
            std::thread::scope(|scope| {
                for (i, part) in out.chunks_mut(share * cols * 2).enumerate() {
                    scope.spawn(move || {
                        let mut scratch = vec![0f32; cols];
                        for (j, row) in part.chunks_exact_mut(cols * 2).enumerate() {
                            let from = source_row(first + i * share + j, head_dim);
                            match whole {
                                Some(values) => {
                                    row.copy_from_slice(&bf16::from_f32(values[from]).to_le_bytes())
                                }
                                None => convert(weight, from, &mut scratch, row),
                            }
                        }
                    });
                }
            });
            // SAFETY: the staging buffer is not touched again before its event.
            unsafe { arena.write_async(offset + first * cols * 2, out, stream)? };
            copied.record(stream)?;
        }
        Ok(())
    }
}

/// The row of the file that becomes this row: pairs `(2i, 2i + 1)` of a head become `(i, i + half)`.
fn source_row(row: usize, head_dim: Option<usize>) -> usize {
    let Some(dim) = head_dim else { return row };
    let (head, i) = (row / dim, row % dim);
    let half = dim / 2;
    head * dim + if i < half { 2 * i } else { 2 * (i - half) + 1 }
}

fn convert(weight: &Weight, row: usize, scratch: &mut [f32], out: &mut [u8]) {
    if weight.ty == WeightType::BF16 {
        out.copy_from_slice(weight.row(row));
        return;
    }
    weight.row_to_f32(row, scratch);
    for (out, value) in out.chunks_exact_mut(2).zip(scratch) {
        out.copy_from_slice(&bf16::from_f32(*value).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_pairs_become_halves() {
        let rows: Vec<usize> = (0..12).map(|r| source_row(r, Some(6))).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(source_row(7, None), 7);
    }
}
