//! Which parts of a piece of memory are free. Pure: it holds numbers only.

use std::collections::BTreeMap;

/// All parts begin at multiples of it.
pub(super) const STEP: usize = 256;

/// The free parts of a piece of memory, by where they begin; no two of them touch.
#[derive(Debug)]
pub(super) struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// All of `len` bytes are free.
    pub(super) fn new(len: usize) -> Self {
        let len = len / STEP * STEP;
        Self((len > 0).then_some((0, len)).into_iter().collect())
    }

    /// Takes the first part of at least `len` bytes: where it begins and how long it is.
    pub(super) fn take(&mut self, len: usize) -> Option<(usize, usize)> {
        let len = len.max(1).checked_next_multiple_of(STEP)?;
        let (at, there) = self.0.iter().find(|(_, there)| **there >= len).map(|(at, there)| (*at, *there))?;
        self.0.remove(&at);
        if there > len {
            self.0.insert(at + len, there - len);
        }
        Some((at, len))
    }

    /// Gives back what [`Self::take`] gave.
    pub(super) fn give(&mut self, (mut at, mut len): (usize, usize)) {
        if let Some(behind) = self.0.remove(&(at + len)) {
            len += behind;
        }
        if let Some((before, there)) = self.0.range(..at).next_back().map(|(at, len)| (*at, *len))
            && before + there == at
        {
            (at, len) = (before, there + len);
        }
        self.0.insert(at, len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_given_back_is_one_piece_again() {
        let mut ranges = Ranges::new(10 * STEP + 7);
        let taken: Vec<_> = (1..=4).map(|steps| ranges.take(steps * STEP).unwrap()).collect();
        assert_eq!(taken, [(0, STEP), (STEP, 2 * STEP), (3 * STEP, 3 * STEP), (6 * STEP, 4 * STEP)]);
        assert_eq!(ranges.take(1), None, "all is taken");
        for at in [1, 3, 0, 2] {
            ranges.give(taken[at]);
        }
        assert_eq!(ranges.take(10 * STEP), Some((0, 10 * STEP)));
        assert_eq!(ranges.take(usize::MAX), None);
    }

    #[test]
    fn parts_never_overlap() {
        let mut ranges = Ranges::new(64 * STEP);
        let (mut held, mut number) = (Vec::<(usize, usize)>::new(), 1u32);
        for _ in 0..2000 {
            // A fixed row of numbers, each half of the last.
            number = (number >> 1) ^ (0u32.wrapping_sub(number & 1) & 0xd000_0001);
            if number % 3 == 0 && !held.is_empty() {
                ranges.give(held.swap_remove(number as usize % held.len()));
            } else if let Some(part) = ranges.take(number as usize % (9 * STEP)) {
                let apart =
                    |other: &(usize, usize)| part.0 + part.1 <= other.0 || other.0 + other.1 <= part.0;
                assert!(part.0 + part.1 <= 64 * STEP && held.iter().all(apart));
                held.push(part);
            }
        }
        held.drain(..).for_each(|part| ranges.give(part));
        assert_eq!(ranges.take(64 * STEP), Some((0, 64 * STEP)));
    }
}
