//! The keys and values of a layer, to be asked for by the products before its attention.

use super::{Segment, Weights};
use crate::kv::{BLOCK_TOKENS, KvPool};
use crate::linear::Ahead;

/// Sequences of a step from which on products compute longer than their weights take to come.
const SEQUENCES: usize = 4;
/// Keys and values of a layer that are asked for at most: what the caches of a machine hold beside all else.
const BYTES: usize = 8 << 20;

/// Where the keys and values of a step's sequences lie in every layer.
pub(super) struct KvAhead {
    /// Bytes of a layer's keys and values in a block.
    bytes: usize,
    base: usize,
    /// Those of layers that see all, and of those with a window.
    full: Shares,
    windowed: Shares,
}

/// Where the first layer's begin behind the base, for each block: those that the products of gate and up ask for, those of
/// down, and those of q, k and v. Each has some of every sequence, in order: a thread then asks for what it will read itself.
#[derive(Default)]
struct Shares([Vec<usize>; 3]);

impl Weights {
    pub(super) fn kv_ahead(&self, kv: &KvPool, segments: &[Segment<'_>]) -> KvAhead {
        let (base, vector) = kv.place();
        let shape = kv.shape();
        let bytes = shape.block_bytes().unwrap_or(0) / shape.layers.max(1);
        let cost =
            self.layers.first().map(|l| [&l.gate_up, &l.down, &l.qkv].map(|linear| linear.bytes() as f64));
        let [gate_up, down, qkv] = cost.unwrap_or([1.0; 3]);
        let bounds = [gate_up, gate_up + down].map(|part| part / (gate_up + down + qkv));
        let shares = |window: Option<usize>| {
            let of = |s: &Segment<'_>| {
                let first = window.map_or(0, |w| (s.start + 1).saturating_sub(w) / BLOCK_TOKENS);
                first..s.start.div_ceil(BLOCK_TOKENS)
            };
            let mut shares = Shares::default();
            let count: usize = segments.iter().map(|s| of(s).len()).sum();
            if segments.len() < SEQUENCES || count.saturating_mul(bytes) > BYTES {
                return shares;
            }
            for (i, block) in segments.iter().flat_map(|s| &s.table[of(s)]).enumerate() {
                // Multiples of the golden ratio are spread evenly, however few of them one looks at.
                let place = (i as f64 * 0.618_033_988_749_895).fract();
                let share = bounds.iter().filter(|bound| place >= **bound).count();
                shares.0[share].push(kv.start(*block, 0, 0) * vector);
            }
            shares
        };
        let windowed = self.config.sliding_window.map(|w| shares(Some(w))).unwrap_or_default();
        KvAhead { bytes, base, full: shares(None), windowed }
    }

    /// What the products of layer `l` ask for: that of q, k and v for its own attention, those of gate and up and of down for
    /// the next layer's.
    pub(super) fn asks<'a>(&self, kv: &'a KvAhead, l: usize) -> [Ahead<'a>; 3] {
        let of = |l: usize, share: usize| match self.layers.get(l) {
            None => Ahead::default(),
            Some(_) => {
                let shares = if self.config.window(l).is_some() { &kv.windowed } else { &kv.full };
                Ahead::new(kv.base + l * kv.bytes, &shares.0[share], kv.bytes)
            }
        };
        [of(l, 2), of(l + 1, 0), of(l + 1, 1)]
    }
}
