//! The arrays of a step that is not decode alone, packed for one copy.

use trireme_llm::executor::{Slot, StepDiff};

/// Rows of a tile of prefill attention.
const TILE_ROWS: usize = 128;

/// Offsets of the arrays in the upload, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MixedLayout {
    pub(super) rows: usize,
    pub(super) decode: usize,
    pub(super) samples: usize,
    pub(super) tiles: usize,
    pub(super) bytes: usize,
}

impl MixedLayout {
    /// Token, slot and position of each row; row, slot and index of each sample; tiles.
    pub(super) fn offset(&self, array: usize) -> usize {
        let tiles = self.tiles * 16;
        tiles
            + if array < 3 { array * self.rows * 4 } else { (3 * self.rows + (array - 3) * self.samples) * 4 }
    }
}

/// Most bytes that a step may need.
pub(super) fn max_bytes(rows: usize, slots: usize) -> usize {
    (rows.div_ceil(TILE_ROWS) + slots) * 16 + (3 * rows + 3 * slots) * 4
}

/// Writes the arrays; `sampled` gets the slots that choose a token, in the order of the results.
pub(super) fn encode(step: &StepDiff, out: &mut [u8], sampled: &mut Vec<Slot>) -> MixedLayout {
    let tiles: usize = step.prefill.iter().map(|c| c.tokens.len().div_ceil(TILE_ROWS)).sum();
    let samples = step.decode.len() + step.prefill.iter().filter(|c| c.sample.is_some()).count();
    let mut layout = MixedLayout { rows: step.rows(), decode: step.decode.len(), samples, tiles, bytes: 0 };
    layout.bytes = layout.offset(6);
    let mut put = |at: usize, i: usize, value: i32| {
        let at = at + i * 4;
        out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let offsets: [usize; 6] = std::array::from_fn(|i| layout.offset(i));
    let mut row = 0;
    sampled.clear();
    for d in &step.decode {
        put(offsets[0], row, -1);
        put(offsets[1], row, d.slot.0 as i32);
        put(offsets[2], row, d.position as i32);
        put(offsets[3], row, row as i32);
        put(offsets[4], row, d.slot.0 as i32);
        put(offsets[5], row, d.sample as i32);
        sampled.push(d.slot);
        row += 1;
    }
    let mut tile_list = Vec::with_capacity(tiles);
    for chunk in &step.prefill {
        let slot = chunk.slot.0 as i32;
        for (i, token) in chunk.tokens.iter().enumerate() {
            put(offsets[0], row + i, *token as i32);
            put(offsets[1], row + i, slot);
            put(offsets[2], row + i, chunk.start as i32 + i as i32);
        }
        for first in (0..chunk.tokens.len()).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(chunk.tokens.len() - first);
            tile_list.push([(row + first) as i32, rows as i32, slot, chunk.start as i32 + first as i32]);
        }
        row += chunk.tokens.len();
        if let Some(index) = chunk.sample {
            let sample = sampled.len();
            put(offsets[3], sample, row as i32 - 1);
            put(offsets[4], sample, slot);
            put(offsets[5], sample, index as i32);
            sampled.push(chunk.slot);
        }
    }
    // Those with the longest context first: they take longest.
    tile_list.sort_by_key(|tile| std::cmp::Reverse(tile[3]));
    for (i, tile) in tile_list.iter().enumerate() {
        for (j, value) in tile.iter().enumerate() {
            put(0, i * 4 + j, *value);
        }
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_llm::executor::{DecodeRow, PrefillChunk};

    #[test]
    fn arrays_lie_where_the_layout_says() {
        let step = StepDiff {
            decode: vec![DecodeRow { slot: Slot(7), position: 9, sample: 4 }],
            prefill: vec![
                PrefillChunk {
                    slot: Slot(1),
                    start: 0,
                    tokens: (0..130).collect(),
                    sample: None,
                    context_logits: false,
                },
                PrefillChunk {
                    slot: Slot(2),
                    start: 64,
                    tokens: vec![5, 6],
                    sample: Some(3),
                    context_logits: false,
                },
            ],
            ..StepDiff::default()
        };
        let mut out = vec![0; max_bytes(133, 3)];
        let mut sampled = Vec::new();
        let l = encode(&step, &mut out, &mut sampled);
        assert_eq!((l.rows, l.decode, l.samples, l.tiles), (133, 1, 2, 3));
        assert!(l.bytes <= out.len());
        let get = |array: usize, i: usize| {
            let at = l.offset(array) + i * 4;
            i32::from_le_bytes(out[at..at + 4].try_into().unwrap())
        };
        assert_eq!((get(0, 0), get(1, 0), get(2, 0)), (-1, 7, 9));
        assert_eq!((get(0, 130), get(1, 130), get(2, 130)), (129, 1, 129));
        assert_eq!((get(0, 132), get(1, 132), get(2, 132)), (6, 2, 65));
        assert_eq!((get(3, 1), get(4, 1), get(5, 1)), (132, 2, 3));
        assert_eq!(sampled, [Slot(7), Slot(2)]);
        let tile = |i: usize| -> [i32; 4] {
            std::array::from_fn(|j| i32::from_le_bytes(out[i * 16 + j * 4..][..4].try_into().unwrap()))
        };
        assert_eq!(tile(0), [129, 2, 1, 128]);
        assert_eq!(tile(1), [131, 2, 2, 64]);
        assert_eq!(tile(2), [1, 128, 1, 0]);
    }
}
