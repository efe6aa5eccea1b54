//! The table of the rotary embedding: cosines and sines in double precision, once a model.

use trireme_llm::checkpoint::{DecoderConfig, Rope};

use crate::device::{Buffer, Device, Stream};
use crate::error::Result;

/// Positions that are computed and copied together.
const CHUNK: usize = 4096;

/// Bytes of the table.
pub fn table_bytes(config: &DecoderConfig, positions: usize) -> usize {
    positions * config.head_dim / 2 * 8
}

pub(super) fn table(
    device: &Device,
    stream: &Stream,
    config: &DecoderConfig,
    positions: usize,
) -> Result<Buffer> {
    let rope = Rope::new(config);
    let row = config.head_dim / 2 * 8;
    let buffer = Buffer::new(device, table_bytes(config, positions))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let mut host = vec![0u8; CHUNK.min(positions) * row];
    for first in (0..positions).step_by(CHUNK) {
        let count = CHUNK.min(positions - first);
        let share = count.div_ceil(threads);
        std::thread::scope(|scope| {
            for (i, part) in host[..count * row].chunks_mut(share * row).enumerate() {
                let rope = &rope;
                scope.spawn(move || fill(rope, first + i * share, row, part));
            }
        });
        buffer.write(first * row, &host[..count * row], stream)?;
    }
    Ok(buffer)
}

fn fill(rope: &Rope, first: usize, row: usize, out: &mut [u8]) {
    let scaling = f64::from(rope.attention_scaling());
    for (i, out) in out.chunks_exact_mut(row).enumerate() {
        let position = first + i;
        for (pair, frequency) in out.chunks_exact_mut(8).zip(rope.frequencies(position).iter()) {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            pair[..4].copy_from_slice(&((cos * scaling) as f32).to_le_bytes());
            pair[4..].copy_from_slice(&((sin * scaling) as f32).to_le_bytes());
        }
    }
}
