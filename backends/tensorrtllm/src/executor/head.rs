//! Behind the layers: logits, and the tokens that are chosen from them.

use super::buffers::SCAN_CHUNKS;
use super::forward::{Net, Samples};
use super::linear::{Linear, Out};
use super::memory_plan::logits_stride;
use super::streams::{Activation, Matrix, StreamProduct};
use crate::device::{Stream, args};
use crate::error::Result;
use crate::gemm::{Kind, Product};
use crate::kernels::{RopeArgs, StreamKind};
use crate::state::DeviceStateArgs;
use crate::tuning::{Products, Way};

#[repr(C)]
#[derive(Clone, Copy)]
struct SampleArgs {
    state: DeviceStateArgs,
    logits: u64,
    partials: u64,
    slots: u64,
    indices: u64,
    row_position: u64,
    results: u64,
    stride: i32,
    chunks: i32,
    ring: i32,
    max_samples: i32,
}

impl Net {
    /// Logits of `count` rows into the logits' memory. `rows`: which ones, 0 for the first.
    pub(super) fn logits(&mut self, stream: &Stream, rows: u64, count: usize) -> Result<()> {
        let c = &self.weights.config;
        let (hidden, vocab) = (c.hidden_size, c.vocab_size);
        let stride = logits_stride(vocab);
        let (gathered, logits) = (self.buffers.gathered.at(0), self.buffers.logits.at(0));
        let (weight, norm) = (self.weights.head, self.weights.norm);
        let layers = self.way(Products::Layers, count);
        let way = match self.way(Products::Head, count) {
            // What the layers have left is not what these read.
            Way::Few if rows == 0 && layers != Way::Few => Way::Library,
            way => way,
        };
        if way == Way::Few {
            let mut x = self.buffers.hidden.at(0);
            if rows != 0 {
                let (size, residual) = (hidden as i32, self.buffers.residual.at(0));
                // SAFETY: the arguments are those of `gather`.
                unsafe {
                    self.kernels.gather.launch(
                        stream,
                        self.grid((count, 1, 1), 128),
                        args![residual, rows, gathered, size],
                    )?;
                }
                x = gathered;
            }
            let l = Linear { weight, norm, n: vocab, k: hidden, out: Out::StoreF32 };
            return self.by_few(stream, l, count, (x, logits), stride);
        }
        // Behind the layers of a step of decode rows alone, the stream's copy is ready for the head.
        let ready = rows == 0 && way == Way::Stream && layers == Way::Stream;
        if !ready {
            self.norm(stream, norm, rows, gathered, count)?;
        }
        if way == Way::Stream {
            let x = if ready { Activation::Hidden } else { Activation::Gathered };
            let (kind, matrix, rope) = (StreamKind::StoreF32, Matrix::Head, RopeArgs::default());
            let (out, n, k, rows) = (logits, vocab, hidden, count);
            return self.stream(stream, &StreamProduct { kind, matrix, x, out, n, k, rows, stride, rope });
        }
        let product = Product {
            kind: Kind::StoreF32,
            weight,
            x: gathered,
            out: logits,
            m: count,
            n: vocab,
            k: hidden,
            stride,
        };
        // SAFETY: the logits' memory has a row for each slot, and `count` is at most that.
        unsafe { self.gemm.run(stream, &product) }
    }

    /// Chooses tokens from the logits that are there, and ends the step.
    pub(super) fn sample(&self, stream: &Stream, s: &Samples) -> Result<()> {
        if s.count == 0 {
            let state = self.state.args;
            // SAFETY: the argument is that of `count_step`.
            return unsafe { self.kernels.count_step.launch(stream, self.grid((1, 1, 1), 1), args![state]) };
        }
        let arguments = SampleArgs {
            state: self.state.args,
            logits: self.buffers.logits.at(0),
            partials: self.buffers.partials.at(0),
            slots: s.slots,
            indices: s.indices,
            row_position: s.advance,
            results: s.results,
            stride: logits_stride(self.weights.config.vocab_size) as i32,
            chunks: SCAN_CHUNKS as i32,
            ring: s.ring as i32,
            max_samples: s.max_samples as i32,
        };
        // SAFETY: the arguments are those of both kernels; arrays have `count` entries.
        unsafe {
            self.kernels.scan_logits.launch(
                stream,
                self.grid((SCAN_CHUNKS, s.count, 1), 256),
                args![arguments],
            )?;
            self.kernels.choose.launch(stream, self.grid((s.count, 1, 1), 1024), args![arguments])
        }
    }
}
