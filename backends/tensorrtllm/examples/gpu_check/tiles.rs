//! Products of many rows on Hopper, in every size of tile: sums, what is fused around them, and nothing written beside them.

use trireme_tensorrtllm::device::{Buffer, Grid, TensorMap, args};
use trireme_tensorrtllm::kernels::{
    SQUARES, TILE_ROWS, TILE_THREADS, TileKind, TilePlan, TileSize, Tiles, TilesArgs,
};

use crate::Outcome;
use crate::kernels::{Bench, f32s, within};
use crate::random::from_bytes;

/// Sums of squares that stand for a row's.
const SUMS: usize = 3;

const EPS: f32 = 1e-5;

pub(crate) fn run(b: &mut Bench) -> Outcome {
    let Some(tiles) = b.kernels.tiles.clone() else { return Ok(()) };
    for (rows, n, k) in [(129, 320, 192), (300, 520, 264), (200, 1024, 1088)] {
        let case = Case::new(b, rows, n, k);
        for kind in TileKind::ALL {
            for size in 0..TileSize::COUNT {
                for parts in [1, 2, 4] {
                    for norm in [false, true] {
                        case.check(b, &tiles, kind, (size, parts), norm)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Operands, and each row's products with all outputs in double precision.
struct Case {
    rows: usize,
    n: usize,
    k: usize,
    weight: Buffer,
    x: Buffer,
    dots: Vec<f64>,
    old: Vec<f32>,
    gains: Vec<f64>,
    gain: Buffer,
    squares: Vec<f32>,
}

impl Case {
    fn new(b: &mut Bench, rows: usize, n: usize, k: usize) -> Self {
        // Of the gate, and of `up`.
        let (w, weight) = b.bf16(2 * n * k, 1.0 / (k as f32).sqrt());
        let (v, x) = b.bf16(rows * k, 1.0);
        let (gains, gain) = b.bf16(n, 1.0);
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
        let dots = v.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(move |w| dot(x, w))).collect();
        let old = (0..rows * n).map(|_| b.random.normal()).collect();
        let squares = (0..rows * SQUARES).map(|_| b.random.normal().abs() * k as f32).collect();
        Self { rows, n, k, weight, x, dots, old, gains, gain, squares }
    }

    fn check(&self, b: &mut Bench, tiles: &Tiles, kind: TileKind, form: (usize, usize), norm: bool) -> Outcome {
        let Self { rows, n, k, .. } = *self;
        let (size, parts) = (TileSize::ALL[form.0], form.1);
        let own = if kind == TileKind::SiluMul { size.half() } else { size.outputs };
        let (pairs, columns) = (rows.div_ceil(2 * TILE_ROWS), n.div_ceil(own));
        let plan = TilePlan { size: form.0, parts, pairs, columns };
        let Some(function) = tiles.function(kind, &plan).filter(|_| k.div_ceil(64) >= parts) else { return Ok(()) };
        let all = if kind == TileKind::SiluMul { 2 * n } else { n };
        let weight = TensorMap::of_rows(self.weight.at(0), k, all, size.half())?;
        let x = TensorMap::of_rows(self.x.at(0), k, rows, TILE_ROWS)?;
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let squares = b.upload(&bytes(&self.squares));
        let (copy, new_squares) = (b.poisoned(rows * n * 2), b.poisoned(rows * SQUARES * 4));
        let out = if kind == TileKind::Add { b.upload(&bytes(&self.old)) } else { b.poisoned(rows * n * 2) };
        let arguments = TilesArgs {
            out: out.at(0),
            squares: if norm { squares.at(0) } else { 0 },
            copy: copy.at(0),
            gain: self.gain.at(0),
            new_squares: new_squares.at(0),
            n: n as i32,
            k: k as i32,
            steps: k.div_ceil(64) as i32,
            rows: rows as i32,
            stride: n as i32,
            num_squares: SUMS as i32,
            eps: EPS,
            pairs: pairs as i32,
            columns: columns as i32,
            group: 1,
        };
        let cluster = 2 * parts;
        // Fewer clusters than tiles where a block goes from tile to tile.
        let clusters = plan.clusters(if parts > 1 { 132 } else { 8 });
        let grid = Grid {
            blocks: (clusters, cluster, 1),
            threads: TILE_THREADS,
            shared: size.shared_bytes(),
            early: true,
            cluster,
        };
        // SAFETY: the arguments are those of the kernel, the buffers have its sizes.
        unsafe { function.launch(&b.stream, grid, args![weight, x, arguments])? };
        let name = format!("{kind:?} of {} in {parts} parts, {rows} rows, {n} x {k}, norm {norm}", size.outputs);
        let scale = |row: usize| {
            let sum: f64 = self.squares[row * SQUARES..][..SUMS].iter().map(|s| f64::from(*s)).sum();
            if norm { 1.0 / (sum / k as f64 + f64::from(EPS)).sqrt() } else { 1.0 }
        };
        let dot = |row: usize, o: usize| self.dots[row * 2 * n + o] * scale(row);
        let each = (0..rows).flat_map(|row| (0..n).map(move |o| (row, o)));
        match kind {
            TileKind::Store => {
                let wanted: Vec<f64> = each.map(|(row, o)| dot(row, o)).collect();
                within(&name, &from_bytes(&b.read(&out)), &wanted, 4e-3)
            }
            TileKind::SiluMul => {
                let gated = |(row, o)| dot(row, o) / (1.0 + (-dot(row, o)).exp()) * dot(row, n + o);
                let wanted: Vec<f64> = each.map(gated).collect();
                within(&name, &from_bytes(&b.read(&out)), &wanted, 4e-3)
            }
            TileKind::Add => {
                let sum = |(row, o): (usize, usize)| f64::from(self.old[row * n + o]) + dot(row, o);
                let wanted: Vec<f64> = each.clone().map(sum).collect();
                within(&name, &f32s(&b.read(&out)), &wanted, 2e-5)?;
                let times_gain: Vec<f64> = each.zip(&wanted).map(|((_, o), w)| w * self.gains[o]).collect();
                within(&format!("{name}: its copy"), &from_bytes(&b.read(&copy)), &times_gain, 4e-3)?;
                let left = f32s(&b.read(&new_squares));
                let sums = left.chunks_exact(SQUARES).map(|row| row[..columns].iter().sum::<f32>());
                let wanted: Vec<f64> =
                    wanted.chunks_exact(n).map(|row| row.iter().map(|v| v * v).sum()).collect();
                within(&format!("{name}: its squares"), &sums.collect::<Vec<_>>(), &wanted, 2e-5)
            }
        }
    }
}
