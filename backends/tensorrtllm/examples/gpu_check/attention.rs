//! Attention on its own: every head size, groups, windows and pieces against double precision.

use trireme_llm::checkpoint::{DecoderConfig, WeightType};
use trireme_llm::executor::{SlotSampling, StepDiff};
use trireme_tensorrtllm::{CudaExecutor, Options, Source};

use crate::Outcome;
use crate::driver::Driver;
use crate::random::distance;
use crate::shapes::small;

/// Rounding to bf16 of probabilities and of the result.
const LIMIT: f64 = 6e-3;

pub(crate) fn check() -> Outcome {
    let cases = [
        (64, 4, 2, None),
        (64, 12, 1, Some(100)),
        (80, 4, 4, None),
        (96, 4, 2, Some(33)),
        (128, 4, 4, None),
        (128, 8, 1, Some(200)),
        (256, 2, 1, None),
    ];
    let mut worst = 0.0f64;
    for (head_dim, num_heads, num_kv_heads, sliding_window) in cases {
        let config =
            DecoderConfig { head_dim, num_heads, num_kv_heads, sliding_window, num_layers: 1, ..small() };
        for sm90_prefill in [true, false] {
            let options = Options {
                max_slots: 4,
                max_step_tokens: 1024,
                max_kv_tokens: Some(8192),
                tune: false,
                sm90_prefill,
                ..Options::default()
            };
            let mut driver =
                Driver::new(CudaExecutor::load(&config, &Source::Dummy(WeightType::BF16), &options)?);
            for (slot, first) in [(0u32, 1usize), (1, 150), (2, 400), (3, 128)] {
                driver.admit(slot, &[1], SlotSampling::default());
                driver.chunk(slot, &tokens(slot, first), true, false);
            }
            worst = worst.max(case(&mut driver, &config)?);
            // Prompts go on in the middle of a block and of a tile, beside decode rows.
            driver.decode(&[0, 3]);
            driver.chunk(1, &tokens(5, 77), true, false);
            driver.chunk(2, &tokens(6, 301), true, false);
            worst = worst.max(case(&mut driver, &config)?);
        }
    }
    println!("attention: the largest distance is {worst:.1e}, limit {LIMIT:.0e}");
    if worst < LIMIT { Ok(()) } else { Err("attention is too far from double precision".into()) }
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + seed * 101) % 1000).collect()
}

/// Runs the step that was put together and compares every row.
fn case(driver: &mut Driver, c: &DecoderConfig) -> Result<f64, Box<dyn std::error::Error>> {
    let step: StepDiff = driver.take();
    let mut rows: Vec<(u32, usize)> = step.decode.iter().map(|d| (d.slot.0, d.position as usize)).collect();
    for chunk in &step.prefill {
        rows.extend((0..chunk.tokens.len()).map(|i| (chunk.slot.0, chunk.start as usize + i)));
    }
    let (queries, out) = driver.executor.attend_only(&step)?;
    let width = c.num_heads * c.head_dim;
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    let mut slot_blocks = std::collections::HashMap::new();
    for slot in 0..4 {
        let blocks: Vec<u32> = driver.blocks(slot).to_vec();
        let read: Result<Vec<_>, _> = blocks.iter().map(|b| driver.executor.read_block(*b)).collect();
        slot_blocks.insert(slot, read?);
    }
    for (row, (slot, position)) in rows.iter().enumerate() {
        let blocks = &slot_blocks[slot];
        let first = c.window(0).map_or(0, |w| (position + 1).saturating_sub(w));
        for head in 0..c.num_heads {
            let kv = head / (c.num_heads / c.num_kv_heads);
            let at = |p: usize| (kv * 32 + p % 32) * c.head_dim;
            let q = &queries[row * width + head * c.head_dim..][..c.head_dim];
            let scores: Vec<f64> = (first..=*position)
                .map(|p| {
                    let k = &blocks[p / 32].0[at(p)..][..c.head_dim];
                    let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    dot / (c.head_dim as f64).sqrt()
                })
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut o = vec![0.0; c.head_dim];
            for (p, w) in (first..=*position).zip(&weights) {
                let v = &blocks[p / 32].1[at(p)..][..c.head_dim];
                o.iter_mut().zip(v).for_each(|(o, v)| *o += w / sum * f64::from(*v));
            }
            wanted.extend(o);
            got.extend(&out[row * width + head * c.head_dim..][..c.head_dim]);
        }
    }
    let d = distance(&got, &wanted);
    if d.is_finite() { Ok(d) } else { Err(format!("head size {}: no numbers", c.head_dim).into()) }
}

/// Times at the sizes that PyTorch's attention is timed at (`sdpa.py`).
pub(crate) fn bench() -> Outcome {
    for (name, config) in [("head 128", crate::shapes::llama_8b()), ("head 64", crate::shapes::llama_1b())] {
        let config = DecoderConfig { num_layers: 4, intermediate_size: 1024, ..config };
        for sm90_prefill in [true, false] {
            let options = Options { tune: false, sm90_prefill, ..Options::default() };
            let mut executor = crate::bench::load(&config, 300_000, options)?;
            for (prompts, length) in [(8, 1024), (2, 4096), (1, 8192)] {
                for row in executor.profile_prefill(prompts, length)?.iter().filter(|r| r.name == "attention")
                {
                    println!(
                        "{name}, sm90 {sm90_prefill}: prefill {prompts} x {length}: {:.1} us, {:.0} TFLOP/s",
                        row.microseconds / 4.0,
                        row.operations as f64 / row.microseconds / 1e6
                    );
                }
            }
            if sm90_prefill {
                for (rows, context) in [(1, 1024), (8, 1024), (32, 1024), (128, 1024), (32, 8192)] {
                    for row in
                        executor.profile_decode(rows, context)?.iter().filter(|r| r.name == "attention")
                    {
                        println!(
                            "{name}: decode {rows} x {context}: {:.1} us, {:.0} GB/s",
                            row.microseconds / 4.0,
                            row.bytes as f64 / row.microseconds / 1e3
                        );
                    }
                }
            }
        }
    }
    Ok(())
}
