//! One step through all layers.

use trireme_llm::executor::BlockId;

use super::{LogitsWanted, Scratch, Segment, Weights};
use crate::attend::{AttentionPlan, LayerKv, Mask};
use crate::kv::{BLOCK_TOKENS, KvPool, MAX_HEAD_DIM};
use crate::linear::{Epilogue, each_row};
use crate::ops::rope;
use crate::shared::SharedMut;

impl Weights {
    /// Runs checked segments, whose positions all lie in blocks of their tables; puts the wanted logits behind the `done`
    /// ones in `s.logits` and gives how many are there then.
    pub(crate) fn step(
        &self,
        s: &mut Scratch,
        kv: &mut KvPool,
        segments: &[Segment<'_>],
        done: usize,
    ) -> usize {
        let rows: usize = segments.iter().map(|x| x.tokens.len()).sum();
        let (c, pool, kernels) = (&self.config, &*self.pool, &self.kernels);
        let (hidden, heads) = (c.hidden_size, self.heads());
        let qkv_width = (heads.query + 2 * heads.kv) * heads.dim;

        self.embed(s, segments, rows);
        let starts = segments.iter().map(|x| (x.tokens.len(), x.start));
        s.angles.clear();
        for position in starts.clone().flat_map(|(n, at)| at..at + n) {
            self.rope.angles(position, &mut s.angles);
        }
        let plan =
            |window| AttentionPlan::new(starts.clone(), heads, Mask::Causal { window }, pool.threads());
        let mut full = plan(None);
        let mut windowed = c.sliding_window.map(|w| plan(Some(w)));
        let tables: Vec<&[BlockId]> = segments.iter().map(|x| x.table).collect();
        s.qkv.resize(rows * qkv_width, 0.0);
        s.attended.resize(rows, heads.query * heads.dim);
        s.gated.resize(rows, c.intermediate_size);
        s.x.resize(rows, hidden);

        let kv_ahead = self.kv_ahead(kv, segments);
        for (l, layer) in self.layers.iter().enumerate() {
            let [with_qkv, with_gate_up, with_down] = self.asks(&kv_ahead, l);
            let from = &s.hidden;
            s.x.fill(pool, kernels, &layer.qkv, |m, x| {
                (kernels.rms_norm)(&from[m * hidden..][..hidden], &layer.input_norm, c.rms_norm_eps, x);
            });
            let bias = layer.qkv_bias.store();
            layer.qkv.apply_and_ask(pool, kernels, &s.x, &mut s.qkv, qkv_width, bias, &with_qkv);
            self.rotate_and_store(s, kv, segments, rows, l);
            let layer_kv = LayerKv { pool: kv, tables: &tables, layer: l };
            let plan = c.window(l).and(windowed.as_mut()).unwrap_or(&mut full);
            plan.run(pool, kernels, heads, layer_kv, &s.qkv, qkv_width, &mut s.attended.x);

            s.attended.ready(pool, kernels, &layer.o);
            layer.o.apply(pool, kernels, &s.attended, &mut s.hidden, hidden, layer.o_bias.add());

            let from = &s.hidden;
            s.x.fill(pool, kernels, &layer.gate_up, |m, x| {
                (kernels.rms_norm)(&from[m * hidden..][..hidden], &layer.post_norm, c.rms_norm_eps, x);
            });
            let width = c.intermediate_size;
            let product = Epilogue::SiluMul;
            layer.gate_up.apply_and_ask(pool, kernels, &s.x, &mut s.gated.x, width, product, &with_gate_up);
            s.gated.ready(pool, kernels, &layer.down);
            layer.down.apply_and_ask(
                pool,
                kernels,
                &s.gated,
                &mut s.hidden,
                hidden,
                Epilogue::Add,
                &with_down,
            );
        }
        self.logits(s, segments, done)
    }

    fn embed(&self, s: &mut Scratch, segments: &[Segment<'_>], rows: usize) {
        let hidden = self.config.hidden_size;
        s.hidden.resize(rows * hidden, 0.0);
        let tokens: Vec<u32> = segments.iter().flat_map(|x| x.tokens).copied().collect();
        let out = SharedMut::new(&mut s.hidden);
        each_row(&self.pool, rows, |m| {
            // SAFETY: every row is visited once.
            let to = unsafe { out.part(m * hidden..(m + 1) * hidden) };
            self.embedding.row_to_f32(tokens[m] as usize, to);
        });
    }

    /// Normalises (where the model does) and turns queries, scaled for attention, and keys; puts keys and values into
    /// their blocks.
    fn rotate_and_store(
        &self,
        s: &mut Scratch,
        kv: &mut KvPool,
        segments: &[Segment<'_>],
        rows: usize,
        layer: usize,
    ) {
        let heads = self.heads();
        let hd = heads.dim;
        let width = (heads.query + 2 * heads.kv) * hd;
        let scale = 1.0 / (hd as f32).sqrt();
        let mut places = Vec::with_capacity(rows);
        for segment in segments {
            let positions = segment.start..segment.start + segment.tokens.len();
            places.extend(positions.map(|p| (segment.table[p / BLOCK_TOKENS], p)));
        }
        let norms = self.layers[layer].qk_norms.as_ref();
        let normalise = |head: &mut [f32], weights: Option<&Vec<f32>>| {
            let Some(weights) = weights else { return };
            let mut copy = [0.0; MAX_HEAD_DIM];
            copy[..hd].copy_from_slice(head);
            (self.kernels.rms_norm)(&copy[..hd], weights, self.config.rms_norm_eps, head);
        };
        let writer = kv.writer();
        let (angles, qkv) = (&s.angles, SharedMut::new(&mut s.qkv));
        each_row(&self.pool, rows, |m| {
            // SAFETY: every row is visited once.
            let row = unsafe { qkv.part(m * width..(m + 1) * width) };
            let angles = &angles[m * hd / 2..][..hd / 2];
            let (q, kv) = row.split_at_mut(heads.query * hd);
            let (k, v) = kv.split_at_mut(heads.kv * hd);
            for q in q.chunks_exact_mut(hd) {
                normalise(q, norms.map(|n| &n.q));
                rope::rotate(q, angles, self.rope_layout, scale);
            }
            let (block, position) = places[m];
            for (head, (k, v)) in k.chunks_exact_mut(hd).zip(v.chunks_exact(hd)).enumerate() {
                normalise(k, norms.map(|n| &n.k));
                rope::rotate(k, angles, self.rope_layout, 1.0);
                // SAFETY: a row has a position of its own, and attention begins when all rows are done.
                unsafe { writer.write(block, layer, head, position, k, v, self.kernels.to_f16) };
            }
        });
    }

    /// Norm and head for the rows that want logits.
    fn logits(&self, s: &mut Scratch, segments: &[Segment<'_>], done: usize) -> usize {
        let mut wanted = Vec::new();
        let mut first = 0;
        for segment in segments {
            let n = segment.tokens.len();
            match segment.logits {
                LogitsWanted::None => {}
                LogitsWanted::Last => wanted.push(first + n - 1),
                LogitsWanted::All => wanted.extend(first..first + n),
            }
            first += n;
        }
        let (hidden, vocab) = (self.config.hidden_size, self.head.outputs());
        let (pool, kernels) = (&*self.pool, &self.kernels);
        s.x.resize(wanted.len(), hidden);
        let from = &s.hidden;
        s.x.fill(pool, kernels, &self.head, |m, x| {
            let row = &from[wanted[m] * hidden..][..hidden];
            (kernels.rms_norm)(row, &self.norm, self.config.rms_norm_eps, x);
        });
        let end = done + wanted.len() * vocab;
        // Every one is written: what is there already need not be zeros.
        s.logits.resize(end.max(s.logits.len()), 0.0);
        self.head.apply(pool, kernels, &s.x, &mut s.logits[done..end], vocab, Epilogue::Store);
        end
    }
}
