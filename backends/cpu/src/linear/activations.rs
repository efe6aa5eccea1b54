//! Activation rows as a product takes them: `f32`, and for quantised weights blocks of two times 8 bits beside.

use crate::kernels::Kernels;
use crate::kernels::isa::{BLOCK, QUANT_BYTES};
use crate::shared::SharedMut;
use crate::threads::Pool;

use super::Linear;

/// Rows in blocks of 32: `x[i] = scale * (255 * high[i] + low[i])`; a block is 32 bytes of `high`, then 32 of `low`.
#[derive(Default)]
pub(crate) struct QuantRows {
    pub(crate) q: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    /// The sums of `255 * high + low` of each half of the block, and of all of it.
    pub(crate) sums: Vec<[i32; 3]>,
    /// The sum of the block's elements.
    pub(crate) scaled_sums: Vec<f32>,
    blocks: usize,
}

/// Some rows of [`QuantRows`], one after another.
pub(crate) struct QuantSlice<'a> {
    pub(crate) blocks: usize,
    pub(crate) q: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [[i32; 3]],
    pub(crate) scaled_sums: &'a [f32],
}

/// The same, to be written.
pub(crate) struct QuantSliceMut<'a> {
    pub(crate) q: &'a mut [i8],
    pub(crate) scales: &'a mut [f32],
    pub(crate) sums: &'a mut [[i32; 3]],
    pub(crate) scaled_sums: &'a mut [f32],
}

impl QuantRows {
    pub(crate) fn resize(&mut self, rows: usize, cols: usize) {
        self.blocks = cols / BLOCK;
        let n = rows * self.blocks;
        self.q.resize(n * QUANT_BYTES, 0);
        self.scales.resize(n, 0.0);
        self.sums.resize(n, [0; 3]);
        self.scaled_sums.resize(n, 0.0);
    }

    /// # Panics
    /// If there are not that many rows.
    #[inline(always)]
    pub(crate) fn rows(&self, first: usize, rows: usize) -> QuantSlice<'_> {
        let r = first * self.blocks..(first + rows) * self.blocks;
        QuantSlice {
            blocks: self.blocks,
            q: &self.q[r.start * QUANT_BYTES..r.end * QUANT_BYTES],
            scales: &self.scales[r.clone()],
            sums: &self.sums[r.clone()],
            scaled_sums: &self.scaled_sums[r],
        }
    }
}

/// `rows` rows of `cols` activations.
#[derive(Default)]
pub(crate) struct Activations {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Row-major, `rows * cols`.
    pub(crate) x: Vec<f32>,
    /// Filled by `Kernels::quantize` when a quantised matrix is applied.
    pub(crate) quant: QuantRows,
}

impl Activations {
    /// Makes room for `rows` x `cols`; what was there is forgotten.
    pub(crate) fn resize(&mut self, rows: usize, cols: usize) {
        (self.rows, self.cols) = (rows, cols);
        self.x.resize(rows * cols, 0.0);
    }

    /// Writes each row with `f`, and its quantised blocks beside if `consumer` wants them.
    pub(crate) fn fill(
        &mut self,
        pool: &Pool,
        kernels: &Kernels,
        consumer: &Linear,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let (cols, quantized) = (self.cols, consumer.wants_quantized());
        let blocks = if quantized { cols / BLOCK } else { 0 };
        if quantized {
            self.quant.resize(self.rows, cols);
        }
        let x = SharedMut::new(&mut self.x);
        let q = SharedMut::new(&mut self.quant.q);
        let scales = SharedMut::new(&mut self.quant.scales);
        let sums = SharedMut::new(&mut self.quant.sums);
        let scaled_sums = SharedMut::new(&mut self.quant.scaled_sums);
        each_row(pool, self.rows, |m| {
            let b = m * blocks..(m + 1) * blocks;
            // SAFETY: every row is visited once, and rows are disjoint.
            let (x, to) = unsafe {
                let to = QuantSliceMut {
                    q: q.part(b.start * QUANT_BYTES..b.end * QUANT_BYTES),
                    scales: scales.part(b.clone()),
                    sums: sums.part(b.clone()),
                    scaled_sums: scaled_sums.part(b),
                };
                (x.part(m * cols..(m + 1) * cols), to)
            };
            f(m, x);
            if quantized {
                (kernels.quantize)(x, to);
            }
        });
    }

    /// Makes what is in `x` ready for `consumer`.
    pub(crate) fn ready(&mut self, pool: &Pool, kernels: &Kernels, consumer: &Linear) {
        if consumer.wants_quantized() {
            self.fill(pool, kernels, consumer, |_, _| {});
        }
    }
}

/// Calls `f` for each of `rows`: on all threads if there are enough of them to be worth waking anybody.
pub(crate) fn each_row(pool: &Pool, rows: usize, f: impl Fn(usize) + Sync) {
    if rows < 8 {
        (0..rows).for_each(f);
    } else {
        pool.run_ranges(rows, 4, |r| r.for_each(&f));
    }
}
