//! The fast kernels against plain arithmetic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use trireme_llm::checkpoint::{Weight, WeightType};

use super::{Kernels, reference};
use crate::linear::{Activations, Epilogue, Layout, Linear};
use crate::ops::{gelu, silu_mul};
use crate::threads::Pool;

const TYPES: [WeightType; 9] = [
    WeightType::F32,
    WeightType::F16,
    WeightType::BF16,
    WeightType::Q8_0,
    WeightType::Q4_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::Q4K,
    WeightType::Q6K,
];

/// A matrix of any bytes, but with tame scales.
fn weight(ty: WeightType, rows: usize, cols: usize, seed: u64) -> Weight {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::new();
    for _ in 0..rows * cols / ty.block_elems() {
        let tame = |r: u64| (r % 2000) as f32 / 1000.0 - 1.0;
        match ty {
            WeightType::F32 => bytes.extend(tame(next()).to_le_bytes()),
            WeightType::F16 => bytes.extend(half::f16::from_f32(tame(next())).to_le_bytes()),
            WeightType::BF16 => bytes.extend(half::bf16::from_f32(tame(next())).to_le_bytes()),
            WeightType::Q6K => {
                bytes.extend((0..192).map(|_| next() as u8));
                // Scales of both signs.
                bytes.extend((0..16).map(|_| next() as u8));
                bytes.extend(half::f16::from_f32(tame(next()) / 100.0).to_le_bytes());
            }
            _ => {
                let scales = if matches!(ty, WeightType::Q4_1 | WeightType::Q4K) { 2 } else { 1 };
                for _ in 0..scales {
                    bytes.extend(half::f16::from_f32(tame(next())).to_le_bytes());
                }
                bytes.extend((0..ty.block_bytes() - 2 * scales).map(|_| next() as u8));
            }
        }
    }
    Weight::from_bytes("w", ty, [rows, cols], bytes).unwrap()
}

fn activations(rows: usize, cols: usize, seed: u64) -> Activations {
    let mut x = Activations::default();
    x.resize(rows, cols);
    // Blocks of very different size, some of zeros.
    x.x = (0..rows * cols)
        .map(|i| {
            let r = (i as u64 + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let size = [0.0, 1.0, 100.0, 1e-3][(i / 32 + seed as usize) % 4];
            (r as f32 / (1u64 << 23) as f32 - 1.0) * size
        })
        .collect();
    x
}

/// One product with the given kernels: `[rows, outputs]`.
fn product(
    kernels: &Kernels,
    pool: &Pool,
    w: &[Weight],
    layout: Layout,
    x: &Activations,
    e: Epilogue<'_>,
) -> Vec<f32> {
    let linear = Linear::new(w, layout, kernels, pool).unwrap();
    let mut copy = Activations::default();
    copy.resize(x.rows, x.cols);
    copy.fill(pool, kernels, &linear, |m, row| row.copy_from_slice(&x.x[m * x.cols..][..x.cols]));
    let mut out = vec![0.5; x.rows * linear.outputs()];
    linear.apply(pool, kernels, &copy, &mut out, linear.outputs(), e);
    out
}

/// For each output the sum of |w| times the largest |x| of the block, stacked: what the rounding of activations is in
/// proportion to, however much the sum itself cancels out.
fn magnitudes(w: &[Weight], x: &Activations) -> Vec<f32> {
    let absolute = |w: &Weight| {
        let data: Vec<f32> = w.to_f32().into_iter().map(f32::abs).collect();
        Weight::from_f32("absolute", [w.rows(), w.cols()], &data)
    };
    let w: Vec<Weight> = w.iter().map(absolute).collect();
    let mut largest = Activations::default();
    largest.resize(x.rows, x.cols);
    for (from, to) in x.x.chunks(32).zip(largest.x.chunks_mut(32)) {
        to.fill(from.iter().fold(0.0, |a: f32, x| a.max(x.abs())));
    }
    product(&reference::TABLE, &Pool::new(1).unwrap(), &w, Layout::Stacked, &largest, Epilogue::Store)
}

/// Activations in two times 8 bits are off by at most half a step of 2⁻¹⁵ of their block's largest; the rest is `f32`.
const ROUNDING: f32 = 4e-5;

fn near(got: f32, golden: f32, bound: f32) -> bool {
    (got - golden).abs() <= bound + 1e-5 * (1.0 + golden.abs())
}

fn fast() -> Vec<Kernels> {
    Kernels::all().into_iter().filter(Kernels::packs).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// All kernels near the reference; the fast ones equal to the last bit; each row as if it were alone.
    #[test]
    fn products(
        rows in 1usize..=65,
        outputs in 1usize..=70,
        blocks in 1usize..=5,
        threads in 1usize..=4,
        seed in any::<u64>(),
        epilogue in 0usize..5,
    ) {
        let bias: Vec<f32> = (0..outputs).map(|i| i as f32 / 10.0).collect();
        let epilogue = [
            Epilogue::Store,
            Epilogue::Add,
            Epilogue::Bias(&bias),
            Epilogue::BiasAdd(&bias),
            Epilogue::BiasGelu(&bias),
        ][epilogue];
        let (one, pool) = (Pool::new(1).unwrap(), Pool::new(threads).unwrap());
        for ty in TYPES {
            let cols = blocks * 32.max(ty.block_elems());
            let w = [weight(ty, outputs, cols, seed)];
            let x = activations(rows, cols, seed);
            let golden = product(&reference::TABLE, &one, &w, Layout::Stacked, &x, epilogue);
            let sizes = magnitudes(&w, &x);
            let mut first: Option<Vec<f32>> = None;
            for kernels in fast() {
                let got = product(&kernels, &pool, &w, Layout::Stacked, &x, epilogue);
                let m = rows / 2;
                let mut alone = activations(1, cols, 0);
                alone.x.copy_from_slice(&x.x[m * cols..(m + 1) * cols]);
                let alone = product(&kernels, &one, &w, Layout::Stacked, &alone, epilogue);
                prop_assert_eq!(&alone[..], &got[m * outputs..(m + 1) * outputs], "{:?} {} alone", ty, kernels.name);
                for ((got, golden), size) in got.iter().zip(&golden).zip(&sizes) {
                    // GELU is nowhere steeper than 1.2.
                    let bound = 1.2 * ROUNDING * size;
                    prop_assert!(near(*got, *golden, bound), "{ty:?} {}: {got} for {golden}", kernels.name);
                }
                prop_assert_eq!(first.get_or_insert_with(|| got.clone()), &got);
            }
        }
    }

    /// Fused gate and up; fused weights of several types.
    #[test]
    fn fused(ty in prop::sample::select(TYPES.to_vec()), rows in 1usize..=20, panels in 1usize..4, seed in any::<u64>()) {
        let pool = Pool::new(2).unwrap();
        let (cols, outputs) = (256, panels * 16);
        let pair = [weight(ty, outputs, cols, seed), weight(ty, outputs, cols, seed ^ 99)];
        let types = [weight(WeightType::Q4_1, 16, cols, seed), pair[0].clone(), pair[1].clone(), weight(WeightType::Q8_0, 5, cols, 3)];
        let mut x = activations(rows, cols, seed);
        x.x.iter_mut().for_each(|x| *x *= 0.01);
        let sizes = magnitudes(&pair, &x);
        // Of silu(gate) * up: silu is nowhere steeper than 1.1 nor larger than its argument.
        let of_pair = |at: usize| {
            let row = &sizes[at / outputs * 2 * outputs..][..2 * outputs];
            2.2 * ROUNDING * row[at % outputs] * row[outputs + at % outputs]
        };
        let stacked = magnitudes(&types, &x);
        let of_stacked = |at: usize| ROUNDING * stacked[at];
        type Bound<'a> = &'a dyn Fn(usize) -> f32;
        let cases: [(&[Weight], _, _, Bound<'_>); 2] = [
            (&pair, Layout::GateUp, Epilogue::SiluMul, &of_pair),
            (&types, Layout::Stacked, Epilogue::Store, &of_stacked),
        ];
        for (w, layout, epilogue, bound) in cases {
            let golden = product(&reference::TABLE, &pool, w, layout, &x, epilogue);
            for kernels in fast() {
                let got = product(&kernels, &pool, w, layout, &x, epilogue);
                for (at, (got, golden)) in got.iter().zip(&golden).enumerate() {
                    prop_assert!(near(*got, *golden, bound(at)), "{}: {got} for {golden}", kernels.name);
                }
            }
        }
    }
}

/// More rows than pass by a panel at once: each as if it came with few others.
#[test]
fn rows_of_several_passes() {
    let pool = Pool::new(2).unwrap();
    let (rows, cols, outputs) = (203, 1536, 40);
    let x = activations(rows, cols, 5);
    for ty in TYPES {
        let w = [weight(ty, outputs, cols, 7)];
        for kernels in fast() {
            let all = product(&kernels, &pool, &w, Layout::Stacked, &x, Epilogue::Store);
            for first in [0, 90, 96, 190] {
                let mut few = activations(13, cols, 0);
                few.x.copy_from_slice(&x.x[first * cols..(first + 13) * cols]);
                let few = product(&kernels, &pool, &w, Layout::Stacked, &few, Epilogue::Store);
                assert_eq!(few, all[first * outputs..(first + 13) * outputs], "{ty:?} {}", kernels.name);
            }
        }
    }
}

#[test]
fn element_wise_operations() {
    let inputs: Vec<f32> = (-2000..2000).map(|i| i as f32 / 100.0).collect();
    let pool = Pool::new(1).unwrap();
    // One column of weight 1 leaves the epilogue alone.
    let one = Weight::from_f32("one", [16, 1], &[1.0; 16]);
    let mut x = Activations::default();
    x.resize(inputs.len(), 1);
    x.x.copy_from_slice(&inputs);
    for kernels in fast() {
        let zeros = [0.0; 16];
        let got = product(
            &kernels,
            &pool,
            std::slice::from_ref(&one),
            Layout::Stacked,
            &x,
            Epilogue::BiasGelu(&zeros),
        );
        for (x, got) in inputs.iter().zip(got.chunks_exact(16)) {
            let golden = gelu::reference(*x);
            assert!((got[0] - golden).abs() < 3e-6, "{}: gelu({x}) = {} for {golden}", kernels.name, got[0]);
        }
        let got =
            product(&kernels, &pool, &[one.clone(), one.clone()], Layout::GateUp, &x, Epilogue::SiluMul);
        for (x, got) in inputs.iter().zip(got.chunks_exact(16)) {
            let golden = silu_mul::reference(*x, *x);
            assert!(
                (got[0] - golden).abs() <= 1e-6 * golden.abs().max(1.0),
                "{}: {x}: {} for {golden}",
                kernels.name,
                got[0]
            );
        }
    }
}

#[test]
fn norms_and_halves() {
    let x: Vec<f32> = (0..96).map(|i| ((i * 37) % 50) as f32 / 7.0 - 3.0).collect();
    let w: Vec<f32> = (0..96).map(|i| 1.0 + i as f32 / 100.0).collect();
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let (mut rms, mut layer) = (vec![0.0; 96], x.clone());
    (reference::TABLE.rms_norm)(&x, &w, 1e-5, &mut rms);
    (reference::TABLE.layer_norm)(&mut layer, &w, &x, 1e-12);
    let mut halves = vec![0; 96];
    let wide: Vec<f32> = x.iter().map(|x| x * x * x * 4000.0).collect();
    (reference::TABLE.to_f16)(&wide, &mut halves);
    for kernels in fast() {
        let (mut a, mut b, mut c) = (vec![0.0; 96], x.clone(), vec![0; 96]);
        (kernels.rms_norm)(&x, &w, 1e-5, &mut a);
        (kernels.layer_norm)(&mut b, &w, &x, 1e-12);
        (kernels.to_f16)(&wide, &mut c);
        assert!(near(&a, &rms) && near(&b, &layer), "{}", kernels.name);
        assert_eq!(c, halves, "{}", kernels.name);
    }
}
