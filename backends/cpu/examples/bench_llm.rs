//! Decode and prefill speed of a decoder: `bench_llm CHECKPOINT [--threads N] [--prompt N] [--decode N] [--repeat N]`.
//!
//! Prints one line of `name=value` pairs: medians over the repetitions, and what share of the memory bandwidth that
//! was measured in the same run the weights alone take while decoding.
// A benchmark prints and measures.
#![allow(clippy::print_stdout, clippy::disallowed_types)]

use std::path::Path;
use std::time::Instant;

use trireme_cpu::{EngineError, LlamaModel, LogitsWanted, Options, Pool};
use trireme_llm::checkpoint::Checkpoint;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .ok_or("usage: bench_llm CHECKPOINT [--threads N] [--prompt N] [--decode N] [--repeat N]")?;
    let (mut threads, mut prompt, mut decode, mut repeat) = (0, 512, 128, 5);
    while let Some(flag) = args.next() {
        let value: usize = args.next().ok_or("a flag needs a value")?.parse()?;
        match flag.as_str() {
            "--threads" => threads = value,
            "--prompt" => prompt = value,
            "--decode" => decode = value,
            "--repeat" => repeat = value,
            other => return Err(format!("unknown flag '{other}'").into()),
        }
    }
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(&path))?;
    let mut model = LlamaModel::load(&checkpoint, Options { threads, ..Options::default() })?;
    let load = start.elapsed().as_secs_f64();
    let vocab = model.config().vocab_size as u32;
    let tokens: Vec<u32> = (0..prompt as u32).map(|i| (i * 7919 + 13) % vocab).collect();

    let mut prefill_rates = Vec::new();
    let mut decode_rates = Vec::new();
    run(&mut model, &tokens, decode.min(16))?;
    for _ in 0..repeat {
        let (p, d) = run(&mut model, &tokens, decode)?;
        prefill_rates.push(p);
        decode_rates.push(d);
    }
    let pool = Pool::new(threads)?;
    let bandwidth = bandwidth(&pool);
    let (p, d) = (median(&mut prefill_rates), median(&mut decode_rates));
    let share = d * model.weight_bytes() as f64 / bandwidth;
    println!(
        "engine=trireme kernels={} threads={} load_s={load:.2} prompt={prompt} decode={decode} \
         prefill_tokens_per_s={p:.1} decode_tokens_per_s={d:.1} weight_mb={:.1} bandwidth_gb_per_s={:.1} \
         bandwidth_share={share:.2}",
        model.kernels(),
        model.threads(),
        model.weight_bytes() as f64 / 1e6,
        bandwidth / 1e9,
    );
    Ok(())
}

/// Tokens per second of a prompt and of the greedy tokens behind it.
fn run(model: &mut LlamaModel, prompt: &[u32], decode: usize) -> Result<(f64, f64), EngineError> {
    let mut cache = model.new_cache();
    let start = Instant::now();
    let mut next = best(model.forward(&mut cache, prompt, LogitsWanted::Last)?);
    let prefill = prompt.len() as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..decode {
        next = best(model.forward(&mut cache, &[next], LogitsWanted::Last)?);
    }
    Ok((prefill, decode as f64 / start.elapsed().as_secs_f64()))
}

fn best(logits: &[f32]) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&l| l == max).unwrap_or(0) as u32
}

/// Bytes per second that all threads together read from 256 MB: the best of five passes.
fn bandwidth(pool: &Pool) -> f64 {
    let data = vec![1u64; 32 << 20];
    let pieces = pool.threads() * 8;
    let mut best = 0f64;
    for _ in 0..5 {
        let start = Instant::now();
        pool.run(pieces, |i| {
            let piece = &data[data.len() * i / pieces..data.len() * (i + 1) / pieces];
            let mut sums = [0u64; 32];
            for chunk in piece.as_chunks::<32>().0 {
                sums.iter_mut().zip(chunk).for_each(|(s, x)| *s = s.wrapping_add(*x));
            }
            std::hint::black_box(sums);
        });
        best = best.max((data.len() * 8) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
