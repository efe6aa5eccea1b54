//! Random checkpoints against a decoder written down plainly in `f64`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::checkpoints::{self, Shape, UNTIED, Weights};
use trireme_cpu::{KernelChoice, KvDtype, LlamaModel, LogitsWanted, Options};

fn mat_vec(w: &[f32], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
}

fn norm(x: &[f64], w: &[f32]) -> Vec<f64> {
    let rms = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    x.iter().zip(w).map(|(x, w)| x / rms * f64::from(*w)).collect()
}

/// Hugging Face's layout: element i turns with element i + half.
fn rope(head: &mut [f64], position: usize) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * 10_000f64.powf(-(i as f64) / half as f64);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * angle.cos() - b * angle.sin();
        head[i + half] = b * angle.cos() + a * angle.sin();
    }
}

/// Logits of all tokens.
fn naive(s: Shape, w: &Weights, tokens: &[u32]) -> Vec<Vec<f64>> {
    let hd = s.head_dim;
    let mut cache: Vec<Vec<(Vec<f64>, Vec<f64>)>> = vec![Vec::new(); s.layers];
    let embedding = &w["model.embed_tokens.weight"];
    let mut out = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        let row = &embedding[token as usize * s.hidden..][..s.hidden];
        let mut h: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        for (l, cache) in cache.iter_mut().enumerate() {
            let get = |name: &str| &w[&format!("model.layers.{l}.{name}.weight")][..];
            let x = norm(&h, get("input_layernorm"));
            let mut q = mat_vec(get("self_attn.q_proj"), &x);
            let mut k = mat_vec(get("self_attn.k_proj"), &x);
            q.chunks_exact_mut(hd).for_each(|h| rope(h, position));
            k.chunks_exact_mut(hd).for_each(|h| rope(h, position));
            cache.push((k, mat_vec(get("self_attn.v_proj"), &x)));
            let mut attended = Vec::new();
            for head in 0..s.heads {
                let kv = head / (s.heads / s.kv_heads) * hd;
                let q = &q[head * hd..(head + 1) * hd];
                let scores: Vec<f64> = cache
                    .iter()
                    .map(|(k, _)| (0..hd).map(|d| q[d] * k[kv + d]).sum::<f64>() / (hd as f64).sqrt())
                    .map(f64::exp)
                    .collect();
                let z: f64 = scores.iter().sum();
                attended
                    .extend((0..hd).map(|d| {
                        cache.iter().zip(&scores).map(|((_, v), p)| p / z * v[kv + d]).sum::<f64>()
                    }));
            }
            h.iter_mut().zip(mat_vec(get("self_attn.o_proj"), &attended)).for_each(|(h, x)| *h += x);
            let x = norm(&h, get("post_attention_layernorm"));
            let up = mat_vec(get("mlp.up_proj"), &x);
            let gated: Vec<f64> = mat_vec(get("mlp.gate_proj"), &x)
                .iter()
                .zip(up)
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            h.iter_mut().zip(mat_vec(get("mlp.down_proj"), &gated)).for_each(|(h, x)| *h += x);
        }
        let head = if s.tied { embedding } else { &w["lm_head.weight"] };
        out.push(mat_vec(head, &norm(&h, &w["model.norm.weight"])));
    }
    out
}

fn check(shape: Shape, tokens: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoint, weights) = checkpoints::open(dir.path(), shape, 7);
    let tokens: Vec<u32> = (0..tokens).map(|i| ((i * 37 + 5) % shape.vocab) as u32).collect();
    let golden = naive(shape, &weights, &tokens);
    for kernels in [KernelChoice::Reference, KernelChoice::Avx2, KernelChoice::Avx512] {
        for (kv_dtype, tolerance) in [(KvDtype::F32, 2e-5), (KvDtype::F16, 1e-2)] {
            let Ok(mut model) = LlamaModel::load(&checkpoint, Options { kernels, kv_dtype, threads: 2 })
            else {
                continue;
            };
            let mut cache = model.new_cache();
            let logits = model.forward(&mut cache, &tokens, LogitsWanted::All).unwrap();
            for (t, (row, golden)) in logits.chunks_exact(shape.vocab).zip(&golden).enumerate() {
                for (got, golden) in row.iter().zip(golden) {
                    let error = (f64::from(*got) - golden).abs();
                    assert!(error < tolerance, "{kernels:?} {kv_dtype:?} token {t}: {got} for {golden}");
                }
            }
        }
    }
}

#[test]
fn bf16_with_an_untied_head() {
    check(UNTIED, 20);
}

#[test]
fn f16_with_a_tied_head() {
    check(Shape { tied: true, dtype: "F16", ..UNTIED }, 20);
}

#[test]
fn f32_without_grouping_over_several_attention_blocks() {
    check(Shape { dtype: "F32", kv_heads: 6, layers: 1, ..UNTIED }, 530);
}

/// Groups larger than a tile of attention.
#[test]
fn one_kv_head_for_ten() {
    check(Shape { dtype: "F32", heads: 10, kv_heads: 1, ..UNTIED }, 12);
}
