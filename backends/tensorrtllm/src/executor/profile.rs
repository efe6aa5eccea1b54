//! A step as launched: each kind of launch with its bytes and its time.

use trireme_llm::executor::{PrefillChunk, Slot, StepDiff, StepId};

use super::forward::{Net, Rows, Samples};
use super::graphs::decode_step;
use super::linear::SKINNY_MAX;
use super::run::CudaExecutor;
use crate::device::{Buffer, Capture, Event, Stream};
use crate::error::Result;
use crate::tuning::{Products, Way};

/// A kind of launch of a step, all layers together.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    pub name: &'static str,
    /// What is computed: with commas in one launch, with semicolons in one after another.
    pub fused: &'static str,
    pub launches: usize,
    /// Bytes that all launches must move at least.
    pub bytes: usize,
    pub microseconds: f64,
}

/// The same of a step that reads prompts.
#[derive(Clone, Debug)]
pub struct PrefillRow {
    pub name: &'static str,
    pub launches: usize,
    pub operations: usize,
    pub microseconds: f64,
}

/// A size that decode steps are padded to.
#[derive(Clone, Copy, Debug)]
pub struct SizeRow {
    pub rows: usize,
    /// Rows that are padding, as a share, over all steps that take this size.
    pub padding: f64,
    /// Memory that the graph took.
    pub graph_bytes: usize,
    pub milliseconds: f64,
}

/// The parts of a step in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Qkv,
    Rope,
    Attention,
    Output,
    GateUp,
    Down,
}

const PARTS: [(Part, &str, &str); 6] = [
    (Part::Qkv, "qkv", "norm, three projections"),
    (Part::Rope, "rope_write", "bias, head norms, rotation, paged write"),
    (Part::Attention, "attention", "scores, softmax, values, reduction"),
    (Part::Output, "o", "projection, residual"),
    (Part::GateUp, "gate_up", "norm, two projections, SiLU, product"),
    (Part::Down, "down", "projection, residual"),
];

/// Runs of each part.
const RUNS: usize = 10;

/// The mean share of rows that are padding in steps of a size, `before` being the next smaller one.
pub fn padding(before: usize, rows: usize) -> f64 {
    (rows - before - 1) as f64 / 2.0 / rows as f64
}

impl CudaExecutor {
    /// Times every kind of launch of a decode step whose `rows` sequences have `context` positions, one kind after
    /// another over all layers. What the slots held is lost.
    pub fn profile_decode(&mut self, rows: usize, context: usize) -> Result<Vec<ProfileRow>> {
        let (list, samples) = self.profile_rows(rows, context)?;
        let c = self.net().weights.config.clone();
        let (layers, hidden, inter) = (c.num_layers, c.hidden_size, c.intermediate_size);
        let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
        let weight = |n: usize, k: usize| layers * n * k * 2;
        let mut out = Vec::new();
        // A row of the table is read, and written as it is for the residual and rounded for the first product.
        let bytes = rows * hidden * (2 + 4 + 2);
        let microseconds = self.time(|net, stream| net.embed(stream, &list))?;
        let fused = "token vectors";
        out.push(ProfileRow { name: "embed", fused, launches: 1, bytes, microseconds });
        let rotates = self.net().rotates_behind_product(rows);
        let (way, of_head) = (self.net().way(Products::Layers, rows), self.net().way(Products::Head, rows));
        // The kernels for few rows take 16 at a time.
        let each = if way == Way::Few { rows.div_ceil(SKINNY_MAX) } else { 1 };
        for (part, name, fused) in PARTS {
            let (fused, launches) = match part {
                Part::Rope if rotates => continue,
                Part::Qkv if rotates => {
                    ("norm, three projections, bias, head norms, rotation, paged write", each)
                }
                Part::Qkv if matches!(way, Way::Gated | Way::Library) => ("norm; three projections", 2),
                Part::GateUp if way == Way::Gated => ("norm; two projections, SiLU, product", 2),
                Part::GateUp if way == Way::Library => ("norm; two projections; SiLU, product", 3),
                Part::Rope | Part::Attention => (fused, 1),
                _ => (fused, each),
            };
            let bytes = match part {
                Part::Qkv => weight(q + 2 * kv, hidden),
                Part::Rope => layers * rows * (q + 2 * kv) * 4,
                Part::Attention => layers * rows * context * 2 * kv * 2,
                Part::Output => weight(hidden, q),
                Part::GateUp => weight(2 * inter, hidden),
                Part::Down => weight(hidden, inter),
            };
            let microseconds = self
                .time(|net, stream| (0..layers).try_for_each(|layer| net.part(stream, &list, layer, part)))?;
            out.push(ProfileRow { name, fused, launches: layers * launches, bytes, microseconds });
        }
        let head = c.vocab_size * hidden * 2;
        let microseconds = self.time(|net, stream| net.logits(stream, 0, rows))?;
        let (fused, launches) = match of_head {
            Way::Few => ("norm, projection", rows.div_ceil(SKINNY_MAX)),
            Way::Stream if way == Way::Stream => ("norm, projection", 1),
            _ => ("norm; projection", 2),
        };
        out.push(ProfileRow { name: "head", fused, launches, bytes: head, microseconds });
        let bytes = rows * c.vocab_size * 4;
        let still = Samples { advance: 0, ..samples };
        let microseconds = self.time(|net, stream| net.sample(stream, &still))?;
        out.push(ProfileRow {
            name: "sample",
            fused: "rules, choice, state",
            launches: 2,
            bytes,
            microseconds,
        });
        let microseconds = self.time(|net, stream| decode_step(stream, net, &list, &still))?;
        let bytes = out.iter().map(|r: &ProfileRow| r.bytes).sum();
        let launches = out.iter().map(|r| r.launches).sum();
        out.push(ProfileRow { name: "step", fused: "launched one by one", launches, bytes, microseconds });
        Ok(out)
    }

    /// Times every kind of launch of a step that reads `prompts` prompts of `length` tokens, all layers together; the
    /// bytes are those of the weights, `operations` all that the launches compute.
    pub fn profile_prefill(&mut self, prompts: usize, length: usize) -> Result<Vec<PrefillRow>> {
        self.occupy(prompts, length)?;
        let chunk = |slot| PrefillChunk {
            slot: Slot(slot as u32),
            start: 0,
            tokens: vec![1; length],
            sample: None,
            context_logits: false,
        };
        let step = StepDiff { prefill: (0..prompts).map(chunk).collect(), ..StepDiff::default() };
        let (rows, _) = self.upload_mixed(&step, StepId(0))?;
        let c = self.net().weights.config.clone();
        let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
        let total = prompts * length;
        let product = |n: usize, k: usize| 2 * total * n * k * c.num_layers;
        let mut out = Vec::new();
        for (part, name, _) in PARTS {
            let operations = match part {
                Part::Qkv => product(q + 2 * kv, c.hidden_size),
                Part::Rope => 0,
                Part::Attention => 4 * q * prompts * (length * (length + 1) / 2) * c.num_layers,
                Part::Output => product(c.hidden_size, q),
                Part::GateUp => product(2 * c.intermediate_size, c.hidden_size),
                Part::Down => product(c.hidden_size, c.intermediate_size),
            };
            let microseconds = self.time(|net, stream| {
                (0..c.num_layers).try_for_each(|layer| net.part(stream, &rows, layer, part))
            })?;
            out.push(PrefillRow { name, launches: c.num_layers, operations, microseconds });
        }
        Ok(out)
    }

    /// Times a decode step of every size, each sequence at `context` positions, as the engine runs them. What the slots
    /// held is lost.
    pub fn profile_sizes(&mut self, context: usize) -> Result<Vec<SizeRow>> {
        let mut out = Vec::new();
        let mut before = 0;
        for rows in self.decode_buckets().to_vec() {
            let padding = padding(before, rows);
            out.push(SizeRow { padding, ..self.profile_size(rows, context)? });
            before = rows;
        }
        Ok(out)
    }

    /// The same of one size, starts back to back: what of a step is the GPU's.
    pub fn profile_size(&mut self, rows: usize, context: usize) -> Result<SizeRow> {
        let (list, samples) = self.profile_rows(rows, context)?;
        let still = Samples { advance: 0, ..samples };
        let (free, _) = self.device().memory()?;
        let device = self.device().clone();
        let graphs = self.uses_graphs();
        let (net, stream) = self.net_and_stream();
        // A first time outside of a recording: it may load code.
        decode_step(stream, net, &list, &still)?;
        stream.synchronize()?;
        let graph = match graphs {
            true => {
                let capture = Capture::begin(stream)?;
                decode_step(stream, net, &list, &still)?;
                Some(capture.finish(&device)?)
            }
            false => None,
        };
        let graph_bytes = free.saturating_sub(device.memory()?.0);
        let microseconds = self.time(|net, stream| match &graph {
            // SAFETY: all that the graph names belongs to this executor.
            Some(graph) => unsafe { graph.launch(stream) },
            None => decode_step(stream, net, &list, &still),
        })?;
        Ok(SizeRow { rows, padding: 0.0, graph_bytes, milliseconds: microseconds / 1e3 })
    }

    /// Bytes that a copy on the GPU reads and writes in a second: what other rates are held against.
    pub fn copy_rate(&mut self) -> Result<f64> {
        const BYTES: usize = 512 << 20;
        let device = self.device().clone();
        let (from, to) = (Buffer::new(&device, BYTES)?, Buffer::new(&device, BYTES)?);
        // SAFETY: the whole buffer.
        self.time(|_, stream| unsafe { stream.fill(from.at(0), 1, BYTES) })?;
        let microseconds = self.time(|_, stream| to.copy_from(&from, stream))?;
        Ok(2.0 * BYTES as f64 / microseconds * 1e6)
    }

    /// Parts that attention is split into for so many rows.
    pub fn attention_parts(&self, rows: usize) -> usize {
        self.net().attention_cut(rows).parts
    }

    fn time(&mut self, mut run: impl FnMut(&mut Net, &Stream) -> Result<()>) -> Result<f64> {
        let device = self.device().clone();
        let (start, end) = (Event::new(&device)?, Event::new(&device)?);
        let (net, stream) = self.net_and_stream();
        run(net, stream)?;
        start.record(stream)?;
        for _ in 0..RUNS {
            run(net, stream)?;
        }
        end.record(stream)?;
        end.wait()?;
        Ok(f64::from(end.since(&start)?) * 1e3 / RUNS as f64)
    }

    /// Fills the decode set with `rows` slots whose tables name blocks in turn.
    fn profile_rows(&mut self, rows: usize, context: usize) -> Result<(Rows, Samples)> {
        self.occupy(rows, context)?;
        Ok((self.set_rows(rows), self.set_samples(rows)))
    }
}
