//! The fast kernels against plain arithmetic, and against each other.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::kernels::Kernels;
use crate::kv::{KvDtype, KvPool, KvShape};
use trireme_llm::executor::BlockId;

/// Numbers of about -1 to 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mix = |i: usize| (i as u64 + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..n).map(|i| mix(i) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A pool of one split of one head, its blocks in reverse order, of which `positions` are written.
fn pool(head_dim: usize, dtype: KvDtype, positions: usize, seed: u64) -> (KvPool, Vec<usize>) {
    let mut pool = KvPool::new(KvShape { layers: 1, kv_heads: 1, head_dim, dtype });
    pool.grow(SPLIT_BLOCKS).unwrap();
    let table: Vec<BlockId> = (0..SPLIT_BLOCKS as u32).rev().map(BlockId).collect();
    let writer = pool.writer();
    for p in 0..positions {
        let (key, value) = (numbers(head_dim, seed ^ p as u64), numbers(head_dim, !seed ^ p as u64));
        // SAFETY: one thread.
        unsafe { writer.write(table[p / BLOCK_TOKENS], 0, 0, p, &key, &value, crate::ops::half::reference) };
    }
    let starts = table.iter().map(|block| pool.start(*block, 0, 0)).collect();
    (pool, starts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any rows that see any part of a split: near the reference, the fast ones equal to the last bit, and each row as if
    /// it were alone.
    #[test]
    fn splits(
        vectors in 1usize..=8,
        half in any::<bool>(),
        bounds in prop::collection::vec((0usize..SPLIT_POSITIONS, 0usize..SPLIT_POSITIONS), 1..=MAX_ROWS),
        seed in any::<u64>(),
    ) {
        let head_dim = vectors * LANES;
        let seen: Vec<Seen> =
            bounds.iter().map(|(a, b)| Seen { from: *a.min(b), to: a.max(b) + 1 }).collect();
        let end = seen.iter().map(|s| s.to).max().unwrap();
        let (pool, starts) = pool(head_dim, if half { KvDtype::F16 } else { KvDtype::F32 }, end, seed);
        let queries: Vec<Vec<f32>> = (0..seen.len()).map(|r| numbers(head_dim, seed.rotate_left(r as u32 + 1))).collect();
        let queries: Vec<&[f32]> = queries.iter().map(|q| &q[..]).collect();
        let run = |kernels: &Kernels, rows: std::ops::Range<usize>| {
            let mut out = Partials::new(head_dim);
            let end = seen[rows.clone()].iter().map(|s| s.to).max().unwrap();
            let tile = AttentionTile {
                kv: pool.vectors(),
                blocks: &starts[..end.div_ceil(BLOCK_TOKENS)],
                next: &starts[..2],
                queries: &queries[rows.clone()],
                seen: &seen[rows.clone()],
                head_dim,
            };
            (kernels.attention)(&tile, &mut out);
            rows.enumerate().map(|(i, _)| (out.max[i], out.sum[i], out.row(i).to_vec())).collect::<Vec<_>>()
        };
        let all = Kernels::all();
        let golden = run(&all[0], 0..seen.len());
        let mut first = None;
        for kernels in all.iter().filter(|k| k.packs()) {
            let got = run(kernels, 0..seen.len());
            for (r, ((max, sum, row), (golden_max, golden_sum, golden_row))) in got.iter().zip(&golden).enumerate() {
                let near = |a: f32, b: f32, size: f32| (a - b).abs() <= 1e-5 * size.max(1.0);
                prop_assert!(near(*max, *golden_max, head_dim as f32), "{}: {max} for {golden_max}", kernels.name);
                prop_assert!(near(*sum, *golden_sum, 10.0 * golden_sum), "{}: {sum} for {golden_sum}", kernels.name);
                for (a, b) in row.iter().zip(golden_row) {
                    prop_assert!(near(*a, *b, 10.0 * golden_sum), "{}: {a} for {b}", kernels.name);
                }
                prop_assert_eq!(&run(kernels, r..r + 1)[0], &got[r], "{} alone", kernels.name);
            }
            prop_assert_eq!(first.get_or_insert_with(|| got.clone()), &got);
        }
    }
}
