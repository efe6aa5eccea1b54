//! What is read after a product, asked for while the product computes.
//!
//! With several rows a product keeps the arithmetic busy and the memory idle; attention over their keys and values does the
//! opposite. So products ask for what attention reads next.

use std::ops::Range;

use crate::kernels::isa::{Isa, LINE};

/// Pieces of memory of equal length, one after another, and which of their lines are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead<'a> {
    /// An address to which those of the pieces are relative.
    base: usize,
    pieces: &'a [usize],
    piece_lines: usize,
    lines: Range<usize>,
}

impl<'a> Ahead<'a> {
    /// `pieces` of `bytes` each, which begin so many bytes behind `base`.
    pub(crate) fn new(base: usize, pieces: &'a [usize], bytes: usize) -> Self {
        let piece_lines = bytes.div_ceil(LINE);
        Self { base, pieces, piece_lines, lines: 0..pieces.len() * piece_lines }
    }

    /// The part `part` of `all` parts.
    pub(crate) fn part(&self, part: Range<usize>, all: usize) -> Self {
        let (first, n) = (self.lines.start, self.lines.len());
        let at = |part: usize| first + (n as u128 * part as u128 / all.max(1) as u128) as usize;
        Self { lines: at(part.start)..at(part.end), ..self.clone() }
    }

    /// A walk along it, for the tiles of `panels` panels of `steps` steps each.
    pub(crate) fn walk(self, panels: usize, steps: usize) -> Walk<'a> {
        let Some(piece) = self.lines.start.checked_div(self.piece_lines) else { return Walk::default() };
        // Equal runs of a piece, of which each panel's tile takes one: so many that they suffice.
        let quota = self.lines.len().div_ceil(panels.max(1)).max(1);
        let run = self.piece_lines.div_ceil((self.piece_lines / quota).max(1));
        Walk {
            base: self.base,
            pieces: self.pieces.get(piece..).unwrap_or_default(),
            piece_lines: self.piece_lines,
            skip: self.lines.start % self.piece_lines,
            left: self.lines.len(),
            run,
            steps: steps.max(1),
        }
    }
}

/// Where a product is on its way along an [`Ahead`].
#[derive(Default)]
pub(crate) struct Walk<'a> {
    base: usize,
    pieces: &'a [usize],
    piece_lines: usize,
    /// Lines of the first piece that are behind.
    skip: usize,
    left: usize,
    run: usize,
    steps: usize,
}

/// Lines that a tile asks for on its way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Run {
    at: usize,
    /// Lines at each step.
    pace: usize,
}

impl Walk<'_> {
    /// What the next panel's tile asks for.
    pub(crate) fn next(&mut self) -> Run {
        let (at, lines) = self.next_lines();
        Run { at, pace: lines.div_ceil(self.steps.max(1)) }
    }

    /// The address of a run of lines, and their number; 0 at the end.
    fn next_lines(&mut self) -> (usize, usize) {
        let Some(piece) = self.pieces.first().filter(|_| self.left > 0) else { return (0, 0) };
        let at = self.base + piece + self.skip * LINE;
        let lines = self.run.min(self.piece_lines - self.skip).min(self.left);
        self.left -= lines;
        self.skip += lines;
        if self.skip == self.piece_lines {
            self.skip = 0;
            self.pieces = &self.pieces[1..];
        }
        (at, lines)
    }
}

impl Run {
    /// Asks for the lines of one step.
    #[inline(always)]
    pub(crate) fn step(&mut self, isa: impl Isa) {
        for _ in 0..self.pace {
            isa.prefetch(std::ptr::without_provenance::<u8>(self.at));
            self.at += LINE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the work is shared out, each line of each piece is asked for once.
    #[test]
    fn parts_are_all_of_it() {
        let pieces = [64_000, 0, 320, 6_400];
        for (bytes, parts, units) in [(320, 3, 7), (64, 9, 1), (100, 1, 5), (6_400, 4, 3)] {
            let all = Ahead::new(1 << 20, &pieces, bytes);
            let mut seen = Vec::new();
            for part in 0..parts {
                let share = all.part(part..part + 1, parts);
                for unit in 0..units {
                    let mut walk = share.part(unit..unit + 1, units).walk(5, 4);
                    // Of each piece's last run a part may be missing.
                    for _ in 0..5 + 2 * pieces.len() {
                        let (at, lines) = walk.next_lines();
                        seen.extend((0..lines).map(|i| at + i * LINE));
                    }
                }
            }
            let lines = |piece: &usize| {
                let piece = *piece + (1 << 20);
                (0..bytes.div_ceil(LINE)).map(move |i| piece + i * LINE)
            };
            assert_eq!(seen, pieces.iter().flat_map(lines).collect::<Vec<_>>());
        }
        assert!(Ahead::default().part(0..1, 2).walk(3, 2).next_lines() == (0, 0));
    }
}
