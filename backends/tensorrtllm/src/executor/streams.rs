//! Products of up to 128 rows on Hopper, and what is fused behind queries, keys and values.

use super::buffers::Buffers;
use super::forward::{Net, Rows};
use super::memory_plan::{BLOCK_TOKENS, Widths};
use crate::device::{Buffer, Grid, Stream, TensorMap, args};
use crate::error::{CudaError, Result};
use crate::kernels::{
    Form, Layout, Place, RopeArgs, StreamArgs, StreamKind, StreamSize, can_share, holds_heads,
};
use crate::model::Weights;
use crate::tuning::{Products, Way};

/// Rows of the boxes in which weights are copied.
const WEIGHT_BOX: usize = 64;

/// The activations that a product reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// The residual stream's copy.
    Hidden,
    Attended,
    Gated,
    Gathered,
}

/// The matrix of a product: a layer's, or the head behind all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matrix {
    Layer(usize, Place),
    Head,
}

/// All matrices that these products read, as the copy engine sees them.
pub(super) struct StreamMaps {
    layers: Vec<[TensorMap; 4]>,
    head: TensorMap,
    /// By activation and size.
    rows: [Vec<TensorMap>; 4],
    /// By size and place.
    pub(super) layouts: [[Layout; 4]; StreamSize::COUNT],
}

impl StreamMaps {
    pub(super) fn new(w: &Weights, b: &Buffers, max_rows: usize, max_samples: usize) -> Result<Self> {
        let c = &w.config;
        let (widths, hidden, inter) = (Widths::new(c), c.hidden_size, c.intermediate_size);
        let weight = |at, n, k| TensorMap::of_rows(at, k, n, WEIGHT_BOX);
        let layers = w.layers.iter().map(|l| {
            Ok([
                weight(l.qkv, widths.qkv, hidden)?,
                weight(l.o, hidden, widths.attended)?,
                weight(l.gate_up, 2 * inter, hidden)?,
                weight(l.down, hidden, inter)?,
            ])
        });
        let rows = |buffer: &Buffer, width, rows| -> Result<Vec<_>> {
            let of = |size: StreamSize| TensorMap::of_rows(buffer.at(0), width, rows, size.rows);
            StreamSize::ALL.into_iter().map(of).collect()
        };
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            head: weight(w.head, c.vocab_size, hidden)?,
            rows: [
                rows(&b.hidden, hidden, max_rows)?,
                rows(&b.attended, widths.attended, max_rows)?,
                rows(&b.gated, inter, max_rows)?,
                rows(&b.gathered, hidden, max_samples)?,
            ],
            layouts: StreamSize::ALL.map(|size| {
                // What was best for the shape of Llama-3.1-8B, where nothing is timed.
                let adds = (if size.rows > 64 { 3 } else { 2 }, Form::Deep);
                [(2, Form::Deep), adds, (1, Form::Wide), adds].map(|(parts, form)| Layout { parts, form })
            }),
        })
    }
}

/// A product: `n` outputs (with SiLU, of the gate) of `k` inputs, written `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct StreamProduct {
    pub(super) kind: StreamKind,
    pub(super) matrix: Matrix,
    pub(super) x: Activation,
    pub(super) out: u64,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) rows: usize,
    pub(super) stride: usize,
    pub(super) rope: RopeArgs,
}

impl Net {
    /// Whether rotation and the write of keys and values are part of the product in front.
    pub(super) fn rotates_behind_product(&self, rows: usize) -> bool {
        let c = &self.weights.config;
        match self.way(Products::Layers, rows) {
            Way::Stream => holds_heads(c.head_dim),
            Way::Few => !c.qk_norm,
            Way::Gated | Way::Library => false,
        }
    }

    pub(super) fn rope_args(&self, rows: &Rows, layer: usize) -> RopeArgs {
        let (c, w, b, s) =
            (&self.weights.config, &self.weights.layers[layer], &self.buffers, &self.state.args);
        RopeArgs {
            bias: w.qkv_bias,
            q_norm: w.q_norm,
            k_norm: w.k_norm,
            angles: self.weights.angles.at(0),
            row_slot: rows.slots,
            row_position: rows.positions,
            tables: s.tables,
            keys: b.keys(layer),
            values: b.values(layer),
            table_width: s.table_width,
            block_tokens: BLOCK_TOKENS as i32,
            q_heads: c.num_heads as i32,
            kv_heads: c.num_kv_heads as i32,
            head_dim: c.head_dim as i32,
            eps: c.rms_norm_eps,
        }
    }

    /// The blocks of a product: their form, and how many share k. A layout that there is not becomes one that there is.
    fn laid_out(&self, p: &StreamProduct, layout: Layout) -> Layout {
        let forms = p.kind.forms();
        let form = if forms.contains(&layout.form) { layout.form } else { forms[0] };
        let (tiles, steps) = (p.n.div_ceil(p.kind.outputs(form)), p.k.div_ceil(64));
        let shared = can_share(layout.parts, form, tiles, steps, self.multiprocessors);
        Layout { parts: if shared { layout.parts } else { 1 }, form }
    }

    /// The layouts that there are of a product.
    pub(super) fn layouts(&self, p: &StreamProduct) -> Vec<Layout> {
        Layout::all(p.kind).filter(|layout| self.laid_out(p, *layout) == *layout).collect()
    }

    /// One launch for a product of at most 128 rows, whose way is [`Way::Stream`].
    pub(super) fn stream(&self, stream: &Stream, p: &StreamProduct) -> Result<()> {
        let none = || CudaError::Unsupported(format!("there is no product of {} rows", p.rows));
        let (Some(maps), Some(kernels), Some((number, size))) =
            (&self.maps, &self.kernels.streams, StreamSize::of(p.rows))
        else {
            return Err(none());
        };
        let Layout { parts, form } = match p.matrix {
            Matrix::Layer(_, place) => self.laid_out(p, maps.layouts[number][place as usize]),
            Matrix::Head => Layout { parts: 1, form: Form::Wide },
        };
        let (w, squares) = (&self.weights, self.buffers.squares.at(0));
        // What the last one that added to the residual stream left.
        let left =
            |place: Place| w.config.hidden_size.div_ceil(maps.layouts[number][place as usize].form.width());
        let (weight, num_squares, gain) = match p.matrix {
            Matrix::Layer(layer, place) => {
                let l = &w.layers[layer];
                let behind = w.layers.get(layer + 1).map_or(w.norm, |next| next.input_norm);
                let (squares, gain) = match place {
                    Place::Qkv if layer == 0 => (1, 0),
                    Place::Qkv => (left(Place::Down), 0),
                    Place::GateUp => (left(Place::Output), 0),
                    Place::Output => (0, l.post_norm),
                    Place::Down => (0, behind),
                };
                (maps.layers[layer][place as usize], squares, gain)
            }
            Matrix::Head if p.x == Activation::Hidden => (maps.head, left(Place::Down), 0),
            Matrix::Head => (maps.head, 0, 0),
        };
        let x = maps.rows[p.x as usize][number];
        let arguments = StreamArgs {
            out: p.out,
            squares: if num_squares > 0 { squares } else { 0 },
            copy: self.buffers.hidden.at(0),
            gain,
            new_squares: squares,
            n: p.n as i32,
            k: p.k as i32,
            steps: p.k.div_ceil(64) as i32,
            rows: p.rows as i32,
            stride: p.stride as i32,
            num_squares: num_squares as i32,
            eps: w.config.rms_norm_eps,
            rope: p.rope,
        };
        let grid = Grid {
            blocks: (p.n.div_ceil(p.kind.outputs(form)), parts, 1),
            threads: form.threads(),
            shared: size.shared_bytes(p.kind, form),
            early: self.early.products,
            cluster: parts,
        };
        let function = kernels.function(number, p.kind, form).ok_or_else(none)?;
        // SAFETY: the arguments are those of the `stream` kernels; the maps are of matrices with the model's sizes.
        unsafe { function.launch(stream, grid, args![weight, x, arguments]) }
    }

    /// A layer's product for these rows.
    pub(super) fn layer_product(&self, rows: &Rows, layer: usize, place: Place) -> StreamProduct {
        let (c, b) = (&self.weights.config, &self.buffers);
        let widths = Widths::new(c);
        let rotates = self.rotates_behind_product(rows.count);
        let (x, out, n, k) = match place {
            Place::Qkv => (Activation::Hidden, &b.qkv, widths.qkv, widths.hidden),
            Place::Output => (Activation::Attended, &b.residual, widths.hidden, widths.attended),
            Place::GateUp => (Activation::Hidden, &b.gated, widths.intermediate, widths.hidden),
            Place::Down => (Activation::Gated, &b.residual, widths.hidden, widths.intermediate),
        };
        let kind = place.kind(rotates);
        let rope = match kind {
            StreamKind::Rope => self.rope_args(rows, layer),
            _ => RopeArgs::default(),
        };
        let matrix = Matrix::Layer(layer, place);
        StreamProduct { kind, matrix, x, out: out.at(0), n, k, rows: rows.count, stride: n, rope }
    }
}
