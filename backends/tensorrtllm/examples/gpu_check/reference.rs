//! A decoder written as its papers write it, in double precision, one sequence at a time.

use std::collections::HashMap;

use half::bf16;
use trireme_llm::checkpoint::{DecoderConfig, Rope};

use crate::random::Random;

/// A fault that is put in on purpose, to show that a check sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Keys are turned by one position too many.
    RopeOffset,
    /// The second 32 positions read the keys and values of the first 32.
    StaleBlock,
    /// Scores are not divided.
    MissingScale,
}

/// Weights that bf16 can hold, as doubles.
pub(crate) struct Reference {
    pub(crate) config: DecoderConfig,
    pub(crate) tensors: HashMap<String, (Vec<usize>, Vec<bf16>)>,
    wide: HashMap<String, Vec<f64>>,
}

impl Reference {
    /// Random weights that keep the stream's size and give next-token entropies of a few nats.
    pub(crate) fn new(config: &DecoderConfig, seed: u64) -> Self {
        let c = config;
        let (q, kv, h, i) =
            (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.hidden_size, c.intermediate_size);
        let mut random = Random(seed);
        let mut tensors = HashMap::new();
        let mut put = |name: String, shape: Vec<usize>, mean: f32, deviation: f32| {
            let n = shape.iter().product();
            let values: Vec<bf16> =
                (0..n).map(|_| bf16::from_f32(mean + random.normal() * deviation)).collect();
            tensors.insert(name, (shape, values));
        };
        let fan = |n: usize, gain: f32| gain / (n as f32).sqrt();
        put("model.embed_tokens.weight".into(), vec![c.vocab_size, h], 0.0, fan(h, 3.0));
        if !c.tie_word_embeddings {
            put("lm_head.weight".into(), vec![c.vocab_size, h], 0.0, fan(h, 3.0));
        }
        put("model.norm.weight".into(), vec![h], 1.0, 0.1);
        for l in 0..c.num_layers {
            let name = |rest: &str| format!("model.layers.{l}.{rest}");
            put(name("input_layernorm.weight"), vec![h], 1.0, 0.1);
            put(name("post_attention_layernorm.weight"), vec![h], 1.0, 0.1);
            for (what, rows) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                put(name(&format!("self_attn.{what}.weight")), vec![rows, h], 0.0, fan(h, 1.2));
                if c.qkv_bias {
                    put(name(&format!("self_attn.{what}.bias")), vec![rows], 0.0, 0.3);
                }
            }
            if c.qk_norm {
                for what in ["q_norm", "k_norm"] {
                    put(name(&format!("self_attn.{what}.weight")), vec![c.head_dim], 1.2, 0.2);
                }
            }
            put(name("self_attn.o_proj.weight"), vec![h, q], 0.0, fan(q, 0.5));
            put(name("mlp.gate_proj.weight"), vec![i, h], 0.0, fan(h, 1.0));
            put(name("mlp.up_proj.weight"), vec![i, h], 0.0, fan(h, 1.0));
            put(name("mlp.down_proj.weight"), vec![h, i], 0.0, fan(i, 0.5));
        }
        let wide =
            tensors.iter().map(|(k, (_, v))| (k.clone(), v.iter().map(|x| f64::from(x.to_f32())).collect()));
        let wide = wide.collect();
        Self { config: config.clone(), tensors, wide }
    }

    fn w(&self, name: &str) -> &[f64] {
        &self.wide[name]
    }

    /// Logits behind each token.
    pub(crate) fn logits(&self, tokens: &[u32], fault: Fault) -> Vec<Vec<f64>> {
        let c = &self.config;
        let (h, hd) = (c.hidden_size, c.head_dim);
        let embedding = self.w("model.embed_tokens.weight");
        let mut x: Vec<Vec<f64>> =
            tokens.iter().map(|t| embedding[*t as usize * h..(*t as usize + 1) * h].to_vec()).collect();
        let rope = Rope::new(c);
        for l in 0..c.num_layers {
            let name = |rest: &str| format!("model.layers.{l}.{rest}");
            let heads =
                |what: &str, count: usize, normed: Option<&str>, turn: Option<usize>| -> Vec<Vec<f64>> {
                    let weight = self.w(&name(&format!("self_attn.{what}.weight")));
                    let norm =
                        normed.filter(|_| c.qk_norm).map(|n| self.w(&name(&format!("self_attn.{n}.weight"))));
                    parallel(&x, |p, row| {
                        let a = rms_norm(row, self.w(&name("input_layernorm.weight")), c.rms_norm_eps);
                        let mut out = product(weight, &a);
                        if c.qkv_bias {
                            let bias = self.w(&name(&format!("self_attn.{what}.bias")));
                            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                        }
                        for head in 0..count {
                            let part = &mut out[head * hd..(head + 1) * hd];
                            if let Some(norm) = norm {
                                let normed = rms_norm(part, norm, c.rms_norm_eps);
                                part.copy_from_slice(&normed);
                            }
                            if let Some(shift) = turn {
                                rotate(part, &rope, p + shift);
                            }
                        }
                        out
                    })
                };
            let shift = usize::from(fault == Fault::RopeOffset);
            let q = heads("q_proj", c.num_heads, Some("q_norm"), Some(0));
            let k = heads("k_proj", c.num_kv_heads, Some("k_norm"), Some(shift));
            let v = heads("v_proj", c.num_kv_heads, None, None);
            let scale = if fault == Fault::MissingScale { 1.0 } else { 1.0 / (hd as f64).sqrt() };
            let attended = parallel(&q, |p, q| {
                let first = c.window(l).map_or(0, |w| (p + 1).saturating_sub(w));
                let source = |j: usize| if fault == Fault::StaleBlock && j / 32 == 1 { j - 32 } else { j };
                let mut out = vec![0.0; c.num_heads * hd];
                for head in 0..c.num_heads {
                    let kv = head / (c.num_heads / c.num_kv_heads) * hd;
                    let q = &q[head * hd..(head + 1) * hd];
                    let scores: Vec<f64> =
                        (first..=p).map(|j| dot(q, &k[source(j)][kv..kv + hd]) * scale).collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (j, w) in (first..=p).zip(&weights) {
                        let v = &v[source(j)][kv..kv + hd];
                        out[head * hd..(head + 1) * hd]
                            .iter_mut()
                            .zip(v)
                            .for_each(|(o, v)| *o += w / sum * v);
                    }
                }
                out
            });
            let o = self.w(&name("self_attn.o_proj.weight"));
            let after: Vec<Vec<f64>> = parallel(&attended, |p, a| add(&x[p], &product(o, a)));
            let (gate, up, down) = (
                self.w(&name("mlp.gate_proj.weight")),
                self.w(&name("mlp.up_proj.weight")),
                self.w(&name("mlp.down_proj.weight")),
            );
            x = parallel(&after, |_, row| {
                let a = rms_norm(row, self.w(&name("post_attention_layernorm.weight")), c.rms_norm_eps);
                let gated: Vec<f64> = product(gate, &a)
                    .iter()
                    .zip(product(up, &a))
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                add(row, &product(down, &gated))
            });
        }
        let head = if c.tie_word_embeddings { embedding } else { self.w("lm_head.weight") };
        parallel(&x, |_, row| product(head, &rms_norm(row, self.w("model.norm.weight"), c.rms_norm_eps)))
    }
}

/// `f` of every row, on all cores.
fn parallel(rows: &[Vec<f64>], f: impl Fn(usize, &[f64]) -> Vec<f64> + Sync) -> Vec<Vec<f64>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(threads).max(1);
    let mut out = vec![Vec::new(); rows.len()];
    std::thread::scope(|scope| {
        for (i, (out, rows)) in out.chunks_mut(share).zip(rows.chunks(share)).enumerate() {
            let f = &f;
            scope.spawn(move || {
                for (j, (out, row)) in out.iter_mut().zip(rows).enumerate() {
                    *out = f(i * share + j, row);
                }
            });
        }
    });
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn product(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

fn rms_norm(x: &[f64], weight: &[f64], eps: f32) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

fn rotate(head: &mut [f64], rope: &Rope, position: usize) {
    let half = head.len() / 2;
    let scaling = f64::from(rope.attention_scaling());
    for (i, f) in rope.frequencies(position).iter().enumerate() {
        let (sin, cos) = (position as f64 * f).sin_cos();
        let (a, b) = (head[i], head[i + half]);
        head[i] = (a * cos - b * sin) * scaling;
        head[i + half] = (b * cos + a * sin) * scaling;
    }
}

pub(crate) fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln() + max;
    logits.iter().map(|l| l - sum).collect()
}
