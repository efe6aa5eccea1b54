//! Which kernels compute a step's products: what there is for so many rows, and what was fastest where the clock was asked.

use std::collections::BTreeMap;

use super::forward::Net;
use super::linear::SKINNY_MAX;
use crate::kernels::{SQUARES, StreamSize};
use crate::tuning::{Products, Way};

/// What the clock has chosen, by the size that steps are padded to.
#[derive(Debug, Default)]
pub(super) struct Ways {
    chosen: BTreeMap<(Products, usize), Way>,
    /// While it is timed.
    forced: Option<(Products, Way)>,
}

impl Ways {
    pub(super) fn choose(&mut self, products: Products, rows: usize, way: Way) {
        self.chosen.insert((products, rows), way);
    }

    pub(super) fn force(&mut self, forced: Option<(Products, Way)>) {
        self.forced = forced;
    }

    /// That of the smallest size that holds so many rows. Where no decode step has so many, that of prompts, of which the
    /// largest stands for all beyond; up to 128 rows prompts have no choice of their own.
    fn of(&self, products: Products, rows: usize) -> Option<Way> {
        if let Some((_, way)) = self.forced.filter(|(what, _)| *what == products) {
            return Some(way);
        }
        let of = |products, rows| self.chosen.range((products, rows)..=(products, usize::MAX));
        let mut found = of(products, rows).next();
        if found.is_none() && products == Products::Layers && StreamSize::of(rows).is_none() {
            found = of(Products::Prompts, rows).next().or_else(|| of(Products::Prompts, 0).next_back());
        }
        found.map(|(_, way)| *way)
    }
}

impl Net {
    /// Whether there are such kernels for products of so many rows.
    pub(super) fn has(&self, way: Way, rows: usize) -> bool {
        let fuses = self.skinny_rows > 0;
        match way {
            // Always 16 rows at a time: the only way in which a row does not depend on its company.
            _ if self.deterministic => way == Way::Few,
            Way::Stream => {
                let hidden = self.weights.config.hidden_size;
                let fits = StreamSize::of(rows).is_some() && hidden.div_ceil(64) <= SQUARES;
                fuses && fits && self.maps.is_some()
            }
            Way::Gated => fuses && StreamSize::of(rows).is_none() && self.has_tiles(),
            Way::Few => fuses && rows <= SKINNY_MAX,
            Way::Library => true,
        }
    }

    /// How a step computes the products of so many rows.
    pub(super) fn way(&self, products: Products, rows: usize) -> Way {
        self.ways
            .of(products, rows)
            .filter(|way| self.has_for(products, *way, rows))
            .unwrap_or_else(|| self.usual_way(products, rows))
    }

    /// The same of these products.
    fn has_for(&self, products: Products, way: Way, rows: usize) -> bool {
        self.has(way, rows) && (products != Products::Head || way != Way::Gated)
    }

    /// Where nothing was timed.
    fn usual_way(&self, products: Products, rows: usize) -> Way {
        if self.has(Way::Stream, rows) {
            Way::Stream
        } else if self.has_for(products, Way::Gated, rows) {
            Way::Gated
        } else if self.deterministic || self.has(Way::Few, rows) && rows <= self.skinny_rows {
            Way::Few
        } else {
            Way::Library
        }
    }

    /// The ways among which the clock may choose, the usual one first. Where there is a copy engine its kernels have always
    /// been faster than those for few rows: these are not timed.
    pub(super) fn candidates(&self, products: Products, rows: usize) -> Vec<Way> {
        let usual = self.usual_way(products, rows);
        // Of a decode step the kernels for few rows read what those of the layers have left.
        let reads = |way: Way| {
            products != Products::Head || way != Way::Few || self.way(Products::Layers, rows) == Way::Few
        };
        let others = [Way::Few, Way::Library].into_iter().filter(|way| *way != usual);
        let others = others.filter(|way| *way != Way::Few || !self.has(Way::Stream, rows));
        std::iter::once(usual)
            .chain(others)
            .filter(|way| self.has_for(products, *way, rows) && reads(*way))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_the_way_of_the_size_that_it_is_padded_to() {
        let mut ways = Ways::default();
        assert_eq!(ways.of(Products::Layers, 1), None);
        ways.choose(Products::Layers, 96, Way::Stream);
        ways.choose(Products::Layers, 104, Way::Library);
        ways.choose(Products::Head, 128, Way::Stream);
        let layers = |rows| ways.of(Products::Layers, rows);
        assert_eq!(
            (layers(96), layers(97), layers(104)),
            (Some(Way::Stream), Some(Way::Library), Some(Way::Library))
        );
        // Nothing is known of more rows; the head's sizes are none of the layers'.
        assert_eq!((layers(105), ways.of(Products::Head, 100)), (None, Some(Way::Stream)));
        // Prompts: no decode step's, none of few rows, and the largest beyond it.
        ways.choose(Products::Prompts, 256, Way::Library);
        ways.choose(Products::Prompts, 512, Way::Gated);
        assert_eq!(
            [120, 129, 257, 513].map(|rows| ways.of(Products::Layers, rows)),
            [None, Some(Way::Library), Some(Way::Gated), Some(Way::Gated)]
        );
        assert_eq!(ways.of(Products::Layers, 97), Some(Way::Library));
        ways.force(Some((Products::Head, Way::Few)));
        assert_eq!(
            (ways.of(Products::Head, 100), ways.of(Products::Layers, 96)),
            (Some(Way::Few), Some(Way::Stream))
        );
    }
}
