//! Linear layers: one or more weight matrices that are applied to the same activations in one product.

mod activations;
mod ahead;
mod pack;

use std::ops::Range;

use trireme_llm::checkpoint::{Weight, WeightType};

use crate::error::EngineError;
use crate::kernels::isa::LANES;
use crate::kernels::{Kernels, reference};
use crate::shared::SharedMut;
use crate::threads::Pool;

pub(crate) use activations::{Activations, QuantRows, QuantSliceMut, each_row};
pub(crate) use ahead::{Ahead, Run, Walk};
pub(crate) use pack::{F32Line, HalfLine, Line, Packed, PackedType, QuantPanel};

/// What is done with a product before it is stored.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    Store,
    /// Added to what is there: the residual stream.
    Add,
    Bias(&'a [f32]),
    BiasAdd(&'a [f32]),
    BiasGelu(&'a [f32]),
    /// `silu(gate) * up`, for [`Layout::GateUp`] only.
    SiluMul,
    /// The same with the biases of gate and of up, one after another.
    BiasSiluMul(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    /// The same for the outputs from `first` on: a part of a layer counts its own from 0.
    fn beginning_at(self, first: usize) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[first..]),
            Self::BiasAdd(bias) => Self::BiasAdd(&bias[first..]),
            Self::BiasGelu(bias) => Self::BiasGelu(&bias[first..]),
            // Gate and up are one part.
            other => other,
        }
    }

    /// The same with another bias.
    pub(crate) fn with_bias<'b>(&self, bias: &'b [f32]) -> Epilogue<'b> {
        match self {
            Self::Store => Epilogue::Store,
            Self::Add => Epilogue::Add,
            Self::SiluMul => Epilogue::SiluMul,
            Self::BiasSiluMul(_) => Epilogue::BiasSiluMul(bias),
            Self::Bias(_) => Epilogue::Bias(bias),
            Self::BiasAdd(_) => Epilogue::BiasAdd(bias),
            Self::BiasGelu(_) => Epilogue::BiasGelu(bias),
        }
    }
}

/// Where a product is written: output `n` of row `m` at `out[m * stride + first + n]`.
pub(crate) struct Output<'a> {
    pub(crate) out: SharedMut<'a, f32>,
    pub(crate) stride: usize,
    pub(crate) first: usize,
    pub(crate) epilogue: Epilogue<'a>,
    /// What is asked for meanwhile.
    pub(crate) ahead: Ahead<'a>,
}

impl<'a> Output<'a> {
    /// Output columns `cols` of row `m`.
    ///
    /// # Safety
    /// Nobody else holds these elements.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, m: usize, cols: Range<usize>) -> &'a mut [f32] {
        let at = m * self.stride + self.first;
        // SAFETY: as the caller promises.
        unsafe { self.out.part(at + cols.start..at + cols.end) }
    }
}

/// How the rows of several weights are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One after another: fused q, k and v.
    Stacked,
    /// Two weights, multiplied after SiLU on the first.
    GateUp,
}

/// A linear layer.
pub(crate) struct Linear {
    outputs: usize,
    cols: usize,
    layout: Layout,
    parts: Vec<Part>,
}

/// Weights of one type, with the first of their outputs.
struct Part {
    first: usize,
    store: Store,
}

enum Store {
    Packed(Packed),
    /// As in the file, for the reference kernels.
    Rows(Vec<Weight>),
}

impl Linear {
    /// A layer of `weights`, each `[out, cols]`, packed if `kernels` want it.
    pub(crate) fn new(
        weights: &[Weight],
        layout: Layout,
        kernels: &Kernels,
        pool: &Pool,
    ) -> Result<Self, EngineError> {
        let first = weights.first().ok_or_else(|| EngineError::Config("a layer without weights".into()))?;
        let cols = first.cols();
        let rows: usize = weights.iter().map(Weight::rows).sum();
        if let Some(w) = weights.iter().find(|w| w.cols() != cols) {
            let expected = vec![w.rows(), cols];
            return Err(EngineError::WeightShape { name: w.name.clone(), found: w.shape.clone(), expected });
        }
        let blocks = weights.iter().map(|w| w.ty.block_elems()).max().unwrap_or(1);
        if kernels.packs() && !cols.is_multiple_of(blocks) {
            let what = "columns of a quantised weight";
            return Err(EngineError::Shape { what, value: cols, multiple: blocks });
        }
        if layout == Layout::GateUp {
            let [gate, up] = weights else {
                return Err(EngineError::Config("gate and up are two weights".into()));
            };
            if gate.rows() != up.rows() || gate.ty != up.ty {
                return Err(EngineError::Config(format!(
                    "{gate:?} and {up:?} differ in type or shape; convert them alike"
                )));
            }
            let store = match kernels.packs() {
                true if gate.rows() % LANES != 0 => {
                    return Err(EngineError::Shape {
                        what: "intermediate_size",
                        value: gate.rows(),
                        multiple: LANES,
                    });
                }
                true => Store::Packed(Packed::interleaved(gate, up, pool)),
                false => Store::Rows(weights.to_vec()),
            };
            return Ok(Self { outputs: rows / 2, cols, layout, parts: vec![Part { first: 0, store }] });
        }
        let mut parts = Vec::new();
        let mut first = 0;
        for run in weights.chunk_by(|a, b| a.ty == b.ty) {
            let store = if kernels.packs() {
                Store::Packed(Packed::stacked(run, pool))
            } else {
                Store::Rows(run.to_vec())
            };
            parts.push(Part { first, store });
            first += run.iter().map(Weight::rows).sum::<usize>();
        }
        Ok(Self { outputs: rows, cols, layout, parts })
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// The bytes of weights that one product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.parts
            .iter()
            .map(|p| match &p.store {
                Store::Packed(p) => p.bytes(),
                Store::Rows(w) => w.iter().map(|w| w.bytes().len()).sum(),
            })
            .sum()
    }

    /// Does a product need the activations in 8-bit blocks?
    pub(crate) fn wants_quantized(&self) -> bool {
        self.parts.iter().any(|p| matches!(&p.store, Store::Packed(p) if is_quantized(p.ty)))
    }

    /// `out[m * stride + n] = epilogue(weights[n] . x[m])` for all rows of `x` and all outputs. An output is the same
    /// to the last bit whatever the number of rows and threads.
    pub(crate) fn apply(
        &self,
        pool: &Pool,
        kernels: &Kernels,
        x: &Activations,
        out: &mut [f32],
        stride: usize,
        epilogue: Epilogue<'_>,
    ) {
        self.apply_and_ask(pool, kernels, x, out, stride, epilogue, &Ahead::default());
    }

    /// [`Self::apply`], which asks for `ahead` meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn apply_and_ask(
        &self,
        pool: &Pool,
        kernels: &Kernels,
        x: &Activations,
        out: &mut [f32],
        stride: usize,
        epilogue: Epilogue<'_>,
        ahead: &Ahead<'_>,
    ) {
        assert!(x.cols == self.cols && (x.rows == 0 || (x.rows - 1) * stride + self.outputs <= out.len()));
        let out = SharedMut::new(out);
        let all = self.bytes();
        let mut done = 0;
        for part in &self.parts {
            let epilogue = epilogue.beginning_at(part.first);
            let out = |ahead| Output { out, stride, first: part.first, epilogue, ahead };
            match &part.store {
                Store::Packed(w) => {
                    let share = ahead.part(done..done + w.bytes(), all);
                    done += w.bytes();
                    let units = if self.layout == Layout::GateUp { w.panels() / 2 } else { w.panels() };
                    pool.run_ranges(units, pieces(x.rows), |r| {
                        let ahead = share.part(r.clone(), units);
                        (kernels.gemm)(w, x, r, &out(ahead));
                    });
                }
                Store::Rows(w) => {
                    let rows = if self.layout == Layout::GateUp {
                        w[0].rows()
                    } else {
                        w.iter().map(Weight::rows).sum()
                    };
                    pool.run_ranges(rows, 4, |r| {
                        reference::gemm(w, self.layout, x, r, &out(Ahead::default()));
                    });
                }
            }
        }
    }
}

/// Pieces of a product for each thread: few when a region takes microseconds, more when uneven progress costs more.
fn pieces(rows: usize) -> usize {
    if rows < 8 { 4 } else { 6 }
}

fn is_quantized(ty: WeightType) -> bool {
    ty.block_elems() > 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::kernels::KernelChoice;

    /// Files of mixed types (Q4_K_M) have v in another type than q and k: its outputs were given the biases of q, and every
    /// answer of such a Qwen 2 was noise.
    #[test]
    fn outputs_of_every_type_have_their_own_biases() {
        let pool = Pool::new(2).unwrap();
        let bias: Vec<f32> = (0..56).map(|n| n as f32 + 0.5).collect();
        for choice in [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512] {
            let Ok(kernels) = Kernels::select(choice) else { continue };
            let weights =
                [(WeightType::F32, 16), (WeightType::Q8_0, 24), (WeightType::BF16, 16)].map(|(ty, rows)| {
                    Weight::from_bytes("w", ty, [rows, 32], vec![0; rows * ty.row_bytes(32)]).unwrap()
                });
            let linear = Linear::new(&weights, Layout::Stacked, &kernels, &pool).unwrap();
            let mut x = Activations::default();
            x.resize(3, 32);
            x.ready(&pool, &kernels, &linear);
            let mut out = vec![1.0; 3 * 56];
            linear.apply(&pool, &kernels, &x, &mut out, 56, Epilogue::Bias(&bias));
            assert!(out.chunks(56).all(|row| row == bias), "{choice:?}: {out:?}");
            linear.apply(&pool, &kernels, &x, &mut out, 56, Epilogue::BiasAdd(&bias));
            assert!(out.iter().zip(bias.iter().cycle()).all(|(y, b)| *y == 2.0 * b), "{choice:?}");
        }
    }
}
