//! Decode and prefill speed of a decoder through the engine's waist:
//! `bench_llm CHECKPOINT [--threads N] [--context N] [--prompt N] [--decode N] [--streams N] [--repeat N]`.
//!
//! Each stream has `--context` tokens before it is measured; then `--prompt` more are read and `--decode` greedy ones
//! are generated, all streams side by side. Prints one line of `name=value` pairs: medians over the repetitions, and
//! what share of the memory bandwidth that was measured in the same run the weights alone take while decoding.
// A benchmark prints and measures.
#![allow(clippy::print_stdout, clippy::disallowed_types)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use trireme_cpu::{CpuExecutor, ExecutorOptions, KvCapacity, Options, Pool};
use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::executor::{
    Admission, BlockId, BlockTableChange, DecodeRow, Executor, ExecutorError, PrefillChunk, Slot,
    SlotSampling, StepDiff,
};

const USAGE: &str = "usage: bench_llm CHECKPOINT [--threads N] [--context N] [--prompt N] [--decode N] \
                     [--streams N] [--repeat N]";

/// Rows of a step.
const STEP: usize = 512;

#[derive(Clone, Copy)]
struct Case {
    context: usize,
    prompt: usize,
    decode: usize,
    streams: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or(USAGE)?;
    let (mut threads, mut repeat) = (0, 5);
    let mut case = Case { context: 0, prompt: 512, decode: 128, streams: 1 };
    while let Some(flag) = args.next() {
        let value: usize = args.next().ok_or("a flag needs a value")?.parse()?;
        match flag.as_str() {
            "--threads" => threads = value,
            "--context" => case.context = value,
            "--prompt" => case.prompt = value,
            "--decode" => case.decode = value,
            "--streams" => case.streams = value,
            "--repeat" => repeat = value,
            other => return Err(format!("unknown flag '{other}'; {USAGE}").into()),
        }
    }
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(&path))?;
    let positions = case.context + case.prompt + case.decode + 1;
    let options = ExecutorOptions {
        model: Options { threads, ..Options::default() },
        max_slots: case.streams,
        max_step_tokens: STEP,
        max_context: Some(positions),
        kv: KvCapacity::Tokens(case.streams * (positions + 32)),
    };
    let mut executor = CpuExecutor::load(&checkpoint, options)?;
    let load = start.elapsed().as_secs_f64();

    let mut prefill_rates = Vec::new();
    let mut decode_rates = Vec::new();
    run(&mut executor, Case { decode: case.decode.min(16), ..case })?;
    for _ in 0..repeat {
        let (p, d) = run(&mut executor, case)?;
        prefill_rates.push(p);
        decode_rates.push(d);
    }
    let pool = Pool::new(threads)?;
    let bandwidth = bandwidth(&pool);
    let (p, d) = (median(&mut prefill_rates), median(&mut decode_rates));
    let weights = executor.model().weight_bytes() as f64;
    let share = d / case.streams as f64 * weights / bandwidth;
    println!(
        "engine=trireme kernels={} threads={} load_s={load:.2} context={} prompt={} decode={} streams={} \
         prefill_tokens_per_s={p:.1} decode_tokens_per_s={d:.1} weight_mb={:.1} bandwidth_gb_per_s={:.1} \
         bandwidth_share={share:.2}",
        executor.model().kernels(),
        executor.model().threads(),
        case.context,
        case.prompt,
        case.decode,
        case.streams,
        weights / 1e6,
        bandwidth / 1e9,
    );
    Ok(())
}

/// Tokens per second of the prompts and of the greedy tokens behind them.
fn run(executor: &mut CpuExecutor, case: Case) -> Result<(f64, f64), ExecutorError> {
    let info = executor.info().clone();
    let tokens: Vec<u32> =
        (0..case.context + case.prompt).map(|i| (i as u32 * 7919 + 13) % info.vocab_size as u32).collect();
    let blocks = (tokens.len() + case.decode).div_ceil(info.kv.block_tokens) as u32;
    let slots: Vec<Slot> = (0..case.streams as u32).map(Slot).collect();
    let begin = StepDiff {
        admitted: slots.iter().map(|slot| admission(*slot, &tokens)).collect(),
        blocks: slots
            .iter()
            .map(|slot| BlockTableChange {
                slot: *slot,
                first: 0,
                blocks: (slot.0 * blocks..(slot.0 + 1) * blocks).map(BlockId).collect(),
            })
            .collect(),
        ..StepDiff::default()
    };
    step(executor, &begin)?;
    for slot in &slots {
        read(executor, *slot, &tokens[..case.context], 0, None)?;
    }
    let start = Instant::now();
    for slot in &slots {
        read(executor, *slot, &tokens[case.context..], case.context, Some(0))?;
    }
    let prefill = (case.prompt * case.streams) as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for i in 0..case.decode {
        let position = (tokens.len() + i) as u32;
        let row = |slot: &Slot| DecodeRow { slot: *slot, position, sample: 1 + i as u32 };
        step(executor, &StepDiff { decode: slots.iter().map(row).collect(), ..StepDiff::default() })?;
    }
    let decode = (case.decode * case.streams) as f64 / start.elapsed().as_secs_f64();
    step(executor, &StepDiff { freed: slots, ..StepDiff::default() })?;
    Ok((prefill, decode))
}

fn admission(slot: Slot, prompt: &[u32]) -> Admission {
    let sampling = Arc::new(SlotSampling::default());
    Admission { slot, sampling, prompt: prompt.into(), generated: Arc::new([]) }
}

/// Reads `tokens` from position `start` on, in chunks.
fn read(
    executor: &mut CpuExecutor,
    slot: Slot,
    tokens: &[u32],
    start: usize,
    sample: Option<u32>,
) -> Result<(), ExecutorError> {
    for (i, piece) in tokens.chunks(STEP).enumerate() {
        let last = (i + 1) * STEP >= tokens.len();
        let chunk = PrefillChunk {
            slot,
            start: (start + i * STEP) as u32,
            tokens: piece.to_vec(),
            sample: sample.filter(|_| last),
            context_logits: false,
        };
        step(executor, &StepDiff { prefill: vec![chunk], ..StepDiff::default() })?;
    }
    Ok(())
}

fn step(executor: &mut CpuExecutor, step: &StepDiff) -> Result<(), ExecutorError> {
    let id = executor.submit(step)?;
    executor.wait(id).map(drop)
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
