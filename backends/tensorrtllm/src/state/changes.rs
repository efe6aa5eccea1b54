//! Changes of the device's state, collected on the host and sent in pieces that fit the upload buffer.

use trireme_llm::executor::{Admission, TokenMask};

use super::records::{ChangeHead, SlotParams, as_bytes};

/// Words of one change: longer ones are cut.
const MAX_WORDS: usize = 16 << 10;

const TABLE: i32 = 0;
const PARAMS: i32 = 1;
const PROMPT_ID: i32 = 3;
const GENERATED_ID: i32 = 4;
const END_ID: i32 = 5;
const BIAS: i32 = 6;
const MASK: i32 = 7;

/// Heads and payload of the changes of a step, in the order in which they were made.
#[derive(Default)]
pub struct Changes {
    /// Slots whose rows of the vocabulary's size must be emptied first.
    pub clear: Vec<ChangeHead>,
    heads: Vec<ChangeHead>,
    words: Vec<u32>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.clear.is_empty() && self.heads.is_empty()
    }

    pub fn reset(&mut self) {
        self.clear.clear();
        self.heads.clear();
        self.words.clear();
    }

    fn push(&mut self, kind: i32, slot: u32, first: usize, words: impl IntoIterator<Item = u32>) {
        let mut words = words.into_iter().peekable();
        let mut first = first;
        while words.peek().is_some() {
            let at = self.words.len();
            self.words.extend(words.by_ref().take(MAX_WORDS));
            let count = self.words.len() - at;
            self.heads.push(ChangeHead {
                kind,
                slot: slot as i32,
                first: first as i32,
                count: count as i32,
                words: at as u32,
                reserved: [0; 3],
            });
            first += count;
        }
    }

    /// Blocks behind the `first` that the table has.
    pub fn table(&mut self, slot: u32, first: usize, blocks: impl IntoIterator<Item = u32>) {
        self.push(TABLE, slot, first, blocks);
    }

    /// All that is known of a new sequence's sampling.
    pub fn admit(&mut self, admission: &Admission) -> SlotParams {
        let slot = admission.slot.0;
        let sampling = &*admission.sampling;
        let params = SlotParams::new(sampling);
        if params.needs_tables() {
            self.clear.push(ChangeHead { slot: slot as i32, ..ChangeHead::default() });
        }
        // SAFETY: the structure has no padding.
        let bytes = unsafe { as_bytes(std::slice::from_ref(&params)) };
        let words = bytes.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
        self.push(PARAMS, slot, 0, words);
        if params.has_penalties() {
            self.push(PROMPT_ID, slot, 0, admission.prompt.iter().copied());
            self.push(GENERATED_ID, slot, 0, admission.generated.iter().copied());
        }
        if params.has_end_ids() {
            self.push(END_ID, slot, 0, sampling.end_ids.iter().copied());
        }
        self.push(BIAS, slot, 0, sampling.logit_bias.iter().flat_map(|(id, bias)| [*id, bias.to_bits()]));
        params
    }

    /// The tokens that a slot may choose from in this step.
    pub fn mask(&mut self, mask: &TokenMask, words: usize) {
        // A mask that is too short forbids what it does not name.
        let padded = mask.words.iter().copied().chain(std::iter::repeat(0)).take(words);
        let at = self.words.len();
        self.words.extend(padded);
        self.heads.push(ChangeHead {
            kind: MASK,
            slot: mask.slot.0 as i32,
            first: 0,
            count: words as i32,
            words: at as u32,
            reserved: [0; 3],
        });
    }

    /// Cuts the changes into pieces of at most `capacity` bytes, heads first, then payload.
    ///
    /// # Panics
    /// If one change alone does not fit.
    pub fn pieces(&self, capacity: usize) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let mut first = 0;
        while first < self.heads.len() {
            let base = self.heads[first].words as usize;
            let size = |last: usize| {
                let head = &self.heads[last];
                (last + 1 - first) * size_of::<ChangeHead>()
                    + (head.words as usize + head.count as usize - base) * 4
            };
            assert!(size(first) <= capacity, "a change of {} bytes", size(first));
            let mut last = first;
            while last + 1 < self.heads.len() && size(last + 1) <= capacity {
                last += 1;
            }
            let end = self.heads[last].words as usize + self.heads[last].count as usize;
            pieces.push(Piece {
                heads: &self.heads[first..=last],
                words: &self.words[base..end],
                base: base as u32,
            });
            first = last + 1;
        }
        pieces
    }
}

/// What is sent at once.
pub struct Piece<'a> {
    pub heads: &'a [ChangeHead],
    pub words: &'a [u32],
    base: u32,
}

impl Piece<'_> {
    /// Writes heads, then words, and returns their number of bytes.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let mut at = 0;
        for head in self.heads {
            let head = ChangeHead { words: head.words - self.base, ..*head };
            // SAFETY: the structure has no padding.
            let bytes = unsafe { as_bytes(std::slice::from_ref(&head)) };
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        // SAFETY: plain numbers.
        let bytes = unsafe { as_bytes(self.words) };
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at + bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_changes_are_cut_and_pieces_fit() {
        let mut changes = Changes::default();
        changes.table(3, 5, 0..40_000);
        changes.table(4, 0, [7]);
        assert_eq!(changes.heads.len(), 4);
        assert_eq!(changes.heads[1].first, 5 + MAX_WORDS as i32);
        let capacity = MAX_WORDS * 4 + 64;
        let pieces = changes.pieces(capacity);
        assert_eq!(pieces.iter().map(|p| p.heads.len()).sum::<usize>(), 4);
        assert_eq!(pieces.iter().map(|p| p.words.len()).sum::<usize>(), 40_001);
        let mut out = vec![0; capacity];
        for piece in &pieces {
            let bytes = piece.write(&mut out);
            assert!(bytes <= capacity);
            assert_eq!(bytes, piece.heads.len() * 32 + piece.words.len() * 4);
        }
    }
}
