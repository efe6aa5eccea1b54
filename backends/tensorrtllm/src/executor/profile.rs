//! A step as launched: each kind of launch with its bytes and its time.

use super::forward::{Net, Rows, Samples, attention_groups, attention_parts};
use super::graphs::decode_step;
use super::run::CudaExecutor;
use crate::device::{Event, Stream};
use crate::error::Result;

/// A kind of launch of a step, all layers together.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    pub name: &'static str,
    /// What is computed in one launch.
    pub fused: &'static str,
    pub launches: usize,
    /// Bytes that all launches must move at least.
    pub bytes: usize,
    pub microseconds: f64,
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
        for (part, name, fused) in PARTS {
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
            out.push(ProfileRow { name, fused, launches: layers, bytes, microseconds });
        }
        let head = c.vocab_size * hidden * 2;
        let microseconds = self.time(|net, stream| net.logits(stream, 0, rows))?;
        out.push(ProfileRow {
            name: "head",
            fused: "norm, projection",
            launches: 1,
            bytes: head,
            microseconds,
        });
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

    /// Parts that attention is split into for so many rows.
    pub fn attention_parts(&self, rows: usize) -> usize {
        let c = &self.net().weights.config;
        attention_parts(rows, attention_groups(c.num_heads, c.num_kv_heads), self.net().multiprocessors)
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
