//! Products with what is fused around them, and the norms in front of those that have none.

use super::forward::Net;
use crate::device::{Grid, Stream, args};
use crate::error::Result;
use crate::gemm::{Kind, Product};
use crate::kernels::{RopeArgs, few_rows_threads};
use crate::tuning::{Products, Way};

/// Rows of the kernel for few rows.
pub(super) const SKINNY_MAX: usize = 16;

/// A matrix with what is fused around its product.
#[derive(Clone, Copy)]
pub(super) struct Linear {
    pub(super) weight: u64,
    /// Of the norm in front; 0 for none.
    pub(super) norm: u64,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) out: Out,
}

/// What becomes of it.
#[derive(Clone, Copy)]
pub(super) enum Out {
    Store,
    StoreF32,
    /// To the residual stream.
    Add,
    SiluMul,
    Rope(RopeArgs),
}

impl Net {
    /// A layer's product with its norm in front and its epilogue behind: one launch for few rows, else three at most. `x`: what it
    /// reads, and where the norm puts it.
    pub(super) fn linear(&mut self, stream: &Stream, l: Linear, rows: usize, x: u64, out: u64) -> Result<()> {
        if self.way(Products::Layers, rows) == Way::Few {
            let x = if l.norm == 0 { x } else { self.buffers.hidden.at(0) };
            return self.by_few(stream, l, rows, (x, out), l.n);
        }
        if l.norm != 0 {
            self.norm(stream, l.norm, 0, x, rows)?;
        }
        let product =
            |kind, n, out| Product { kind, weight: l.weight, x, out, m: rows, n, k: l.k, stride: n };
        match l.out {
            // SAFETY: the matrices have the sizes of the model, and rows for a whole step.
            Out::Store | Out::Rope(_) => unsafe { self.gemm.run(stream, &product(Kind::Store, l.n, out)) },
            // SAFETY: as above.
            Out::StoreF32 => unsafe { self.gemm.run(stream, &product(Kind::StoreF32, l.n, out)) },
            // SAFETY: as above.
            Out::Add => unsafe { self.gemm.run(stream, &product(Kind::Add, l.n, out)) },
            Out::SiluMul => {
                let both = self.buffers.gate_up.at(0);
                // SAFETY: as above.
                unsafe { self.gemm.run(stream, &product(Kind::Store, 2 * l.n, both))? };
                let size = l.n as i32;
                let grid = self.grid(((l.n / 8).div_ceil(256), rows, 1), 256);
                // SAFETY: the arguments are those of `silu_mul`.
                unsafe { self.kernels.silu_mul.launch(stream, grid, args![both, out, size]) }
            }
        }
    }

    /// A product of any number of rows, 16 at a time: each row is computed as it would be alone.
    pub(super) fn by_few(
        &self,
        stream: &Stream,
        l: Linear,
        rows: usize,
        (x, out): (u64, u64),
        stride: usize,
    ) -> Result<()> {
        let bytes = if matches!(l.out, Out::StoreF32 | Out::Add) { 4 } else { 2 };
        (0..rows).step_by(SKINNY_MAX).try_for_each(|first| {
            let (x, out) = (x + (first * l.k * 2) as u64, out + (first * stride * bytes) as u64);
            let copy = self.buffers.hidden.at(first * self.weights.config.hidden_size * 2);
            let out_of = match l.out {
                Out::Rope(rope) => Out::Rope(rope.skipping(first)),
                other => other,
            };
            let l = Linear { out: out_of, ..l };
            self.few_rows(stream, l, SKINNY_MAX.min(rows - first), (x, out, copy), stride)
        })
    }

    /// One launch for a product of at most 16 rows. `copy`: where what is added has its copy in bf16.
    fn few_rows(
        &self,
        stream: &Stream,
        l: Linear,
        rows: usize,
        (x, out, copy): (u64, u64, u64),
        stride: usize,
    ) -> Result<()> {
        let few = &self.kernels.few;
        let (pair, outputs) = match l.out {
            Out::Store => (few.norm, 16),
            Out::StoreF32 => (few.norm_f32, 16),
            Out::SiluMul => (few.norm_silu_mul, 8),
            Out::Add => (few.add, 16),
            Out::Rope(_) => (few.norm_rope, 16),
        };
        let function = pair[usize::from(rows > 8)];
        let threads = few_rows_threads(matches!(l.out, Out::Add));
        let grid = Grid { early: self.early.products, ..self.grid((l.n.div_ceil(outputs), 1, 1), threads) };
        let eps = self.weights.config.rms_norm_eps;
        let (n, k, rows, stride) = (l.n as i32, l.k as i32, rows as i32, stride as i32);
        let late = i32::from(self.early.late);
        // SAFETY: the arguments are those of the `skinny` kernels; matrices have the sizes of the model.
        unsafe {
            match l.out {
                Out::Rope(rope) => {
                    let args = args![l.weight, x, l.norm, eps, out, copy, n, k, rows, stride, late, rope];
                    function.launch(stream, grid, args)
                }
                _ => {
                    let args = args![l.weight, x, l.norm, eps, out, copy, n, k, rows, stride, late];
                    function.launch(stream, grid, args)
                }
            }
        }
    }

    /// Norm of the residual stream's rows, all or those at `rows`.
    pub(super) fn norm(&self, stream: &Stream, weight: u64, rows: u64, out: u64, count: usize) -> Result<()> {
        let x = self.buffers.residual.at(0);
        let (size, eps) = (self.weights.config.hidden_size as i32, self.weights.config.rms_norm_eps);
        // SAFETY: the arguments are those of `rms_norm`.
        unsafe {
            self.kernels.rms_norm.launch(
                stream,
                self.grid((count, 1, 1), 256),
                args![x, weight, rows, out, size, eps],
            )
        }
    }
}
