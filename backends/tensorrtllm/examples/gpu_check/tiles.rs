//! Gate, up and SiLU of many rows on Hopper, in every size of tile: against double precision, and nothing written behind them.

use trireme_tensorrtllm::device::{Grid, TensorMap, args};
use trireme_tensorrtllm::kernels::{TILE_ROWS, TILE_THREADS, TilePlan, TileSize, TilesArgs};

use crate::Outcome;
use crate::kernels::{Bench, within};
use crate::random::from_bytes;

pub(crate) fn run(b: &mut Bench) -> Outcome {
    let Some(tiles) = b.kernels.tiles else { return Ok(()) };
    for (rows, n, k) in [(129, 320, 192), (300, 520, 264), (600, 1024, 1088), (256, 136, 64)] {
        // Of the gate, and of `up`.
        let (w, weight) = b.bf16(2 * n * k, 1.0 / (k as f32).sqrt());
        let (v, x) = b.bf16(rows * k, 1.0);
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
        let mut wanted = Vec::new();
        for x in v.chunks_exact(k) {
            let both: Vec<f64> = w.chunks_exact(k).map(|w| dot(x, w)).collect();
            wanted.extend((0..n).map(|i| both[i] / (1.0 + (-both[i]).exp()) * both[n + i]));
        }
        for (number, size) in TileSize::ALL.iter().enumerate() {
            let plan = TilePlan::of(number, rows, n);
            let maps = (
                TensorMap::of_rows(weight.at(0), k, 2 * n, size.half())?,
                TensorMap::of_rows(x.at(0), k, rows, TILE_ROWS)?,
            );
            // Few places, so that blocks go from tile to tile; then many.
            for multiprocessors in [6, 132] {
                let out = b.poisoned((rows + 1) * n * 2);
                let arguments = TilesArgs {
                    out: out.at(0),
                    n: n as i32,
                    steps: k.div_ceil(64) as i32,
                    rows: rows as i32,
                    pairs: plan.pairs as i32,
                    columns: plan.columns as i32,
                    // The last group is shorter.
                    group: 2.min(plan.pairs) as i32,
                };
                let grid = Grid {
                    blocks: (plan.clusters(multiprocessors), 2, 1),
                    threads: TILE_THREADS,
                    shared: size.shared_bytes(),
                    early: true,
                    cluster: 2,
                };
                // SAFETY: the arguments are those of the kernel, the buffers have its sizes.
                unsafe { tiles.function(&plan).launch(&b.stream, grid, args![maps.0, maps.1, arguments])? };
                let bytes = b.read(&out);
                let (all, behind) = bytes.split_at(rows * n * 2);
                let name = format!("{size:?}, {rows} rows, {n} x {k}");
                let all = from_bytes(all);
                within(&name, &all, &wanted, 3e-3)?;
                // Rounded to bf16 once: no element may be further off than that and what f32 sums are.
                let off = |(o, w): (&f32, &f64)| (f64::from(*o) - w).abs() > w.abs() / 200.0 + 1e-4;
                if let Some(i) = all.iter().zip(&wanted).position(off) {
                    return Err(format!("{name}: element {i} is {}, not {}", all[i], wanted[i]).into());
                }
                if behind.iter().any(|byte| *byte != 0xff) {
                    return Err(format!("{name}: a row behind the last one was written").into());
                }
            }
        }
    }
    Ok(())
}
