//! Figures: ceilings of the GPU, decode and prefill of whole models with weights of no meaning, and where a step's time
//! goes.

use std::time::Instant;

use cudarc::driver::sys;
use trireme_llm::checkpoint::{DecoderConfig, DummyNumbers, WeightType};
use trireme_llm::executor::{Executor, SlotSampling};
use trireme_tensorrtllm::device::{Buffer, Device, Event, Stream};
use trireme_tensorrtllm::gemm::{Gemm, Kind, Product};
use trireme_tensorrtllm::kernels::Kernels;
use trireme_tensorrtllm::tuning::Session;
use trireme_tensorrtllm::{CudaExecutor, EarlyLaunch, Options, Source, fill_with};

use crate::Outcome;
use crate::driver::Driver;
use crate::random::Random;
use crate::shapes::{llama_1b, llama_8b};

pub(crate) const CONTEXT: usize = 1024;

pub(crate) fn models() -> [(&'static str, DecoderConfig, usize); 2] {
    [("Llama-3.1-8B", llama_8b(), 420_000), ("Llama-3.2-1B", llama_1b(), 420_000)]
}

pub(crate) fn load(
    config: &DecoderConfig,
    tokens: usize,
    mut options: Options,
) -> Result<CudaExecutor, Box<dyn std::error::Error>> {
    let mut config = config.clone();
    config.max_position_embeddings = 16_384;
    // A folder for the choices of all checks, where somebody wants to read them.
    let choices = std::env::var_os("GPU_CHECK_TUNING").map(std::path::PathBuf::from);
    options.tuning.folder = options.tuning.folder.or(choices);
    Ok(CudaExecutor::load(
        &config,
        &Source::Dummy(WeightType::BF16),
        &Options { max_kv_tokens: Some(tokens), kernel_cache: Some(compiled()), ..options },
    )?)
}

/// Where kernels are kept that had to be compiled: once for all models that are loaded.
pub(crate) fn compiled() -> std::path::PathBuf {
    std::env::temp_dir().join("gpu_check_kernels")
}

/// Copy bandwidth and the rate of a large product, as everything else is measured against.
pub(crate) fn ceilings() -> Outcome {
    let (copy, product) = measured_ceilings()?;
    println!("ceiling copy: {copy:.0} GB/s read and written");
    println!("ceiling bf16 product 8192: {product:.0} TFLOP/s");
    Ok(())
}

/// GB/s of a copy, read and written, and TFLOP/s of a product of bf16 matrices of 8192.
pub(crate) fn measured_ceilings() -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let device = Device::open(0)?;
    let stream = Stream::new(&device)?;
    let kernels = Kernels::load(&device, 128, None)?;
    let (start, end) = (Event::new(&device)?, Event::new(&device)?);
    let bytes = 4usize << 30;
    let (from, to) = (Buffer::new(&device, bytes)?, Buffer::new(&device, bytes)?);
    let numbers = DummyNumbers { seed: 9, start: 0, scale: 1.0 / 147.0 };
    fill_with(&stream, &kernels, from.at(0), bytes / 2, numbers, WeightType::BF16)?;
    let mut best = f64::MAX;
    for _ in 0..10 {
        start.record(&stream)?;
        // SAFETY: both buffers have this size.
        unsafe { sys::cuMemcpyDtoDAsync_v2(to.at(0), from.at(0), bytes, stream.raw()) }.result()?;
        end.record(&stream)?;
        end.wait()?;
        best = best.min(f64::from(end.since(&start)?));
    }
    let copy = 2.0 * bytes as f64 / best / 1e6;
    let n = 8192;
    let product = Product {
        kind: Kind::Store,
        weight: from.at(0),
        x: from.at(n * n * 2),
        out: to.at(0),
        m: n,
        n,
        k: n,
        stride: n,
    };
    let mut gemm = Gemm::new(&device)?;
    // SAFETY: the buffers hold matrices of these sizes.
    unsafe { gemm.tune(&device, &stream, &product, &mut Session::unkept(0))? };
    let mut times = Vec::new();
    for _ in 0..30 {
        start.record(&stream)?;
        // SAFETY: as above.
        unsafe { gemm.run(&stream, &product)? };
        end.record(&stream)?;
        end.wait()?;
        times.push(f64::from(end.since(&start)?));
    }
    times.sort_by(f64::total_cmp);
    Ok((copy, 2.0 * (n as f64).powi(3) / times[15] / 1e9))
}

fn prompt(random: &mut Random, n: usize) -> Vec<u32> {
    (0..n).map(|_| random.below(128_000) as u32).collect()
}

/// Reads the prompts of `slots`, as many tokens a step as fit. Seconds.
pub(crate) fn read(
    driver: &mut Driver,
    slots: std::ops::Range<u32>,
    tokens: usize,
    random: &mut Random,
) -> f64 {
    let budget = driver.executor.info().max_step_tokens;
    for slot in slots.clone() {
        let prompt = prompt(random, tokens);
        driver.admit(slot, &prompt, SlotSampling::default());
    }
    let text = prompt(random, tokens);
    let start = Instant::now();
    let mut room = budget;
    for slot in slots {
        let mut at = 0;
        while at < tokens {
            let n = room.min(tokens - at);
            driver.chunk(slot, &text[at..at + n], at + n == tokens, false);
            at += n;
            room -= n;
            if room == 0 {
                driver.submit();
                room = budget;
            }
        }
    }
    if room < budget {
        driver.submit();
    }
    driver.drain();
    start.elapsed().as_secs_f64()
}

/// Milliseconds of a decode step, two in flight.
pub(crate) fn decode_steps(driver: &mut Driver, slots: &[u32], steps: usize) -> f64 {
    for _ in 0..4 {
        driver.decode(slots);
        driver.submit();
    }
    driver.drain();
    let start = Instant::now();
    for _ in 0..steps {
        driver.decode(slots);
        driver.submit();
    }
    driver.drain();
    start.elapsed().as_secs_f64() * 1e3 / steps as f64
}

/// Bytes that a decode step reads of weights, and those of a position of a sequence.
pub(crate) fn bytes(driver: &Driver, config: &DecoderConfig) -> (f64, f64) {
    let table = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size * 2 };
    let weights = (driver.executor.memory_plan().weights - table) as f64;
    let kv = &driver.executor.info().kv;
    (weights, (kv.block_bytes / kv.block_tokens) as f64)
}

/// Operations of reading a prompt of so many tokens, for each of them.
pub(crate) fn operations(c: &DecoderConfig, length: usize) -> f64 {
    let per_layer = c.hidden_size * (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        + c.hidden_size * c.num_heads * c.head_dim
        + 3 * c.hidden_size * c.intermediate_size;
    let linear = 2.0 * (per_layer * c.num_layers) as f64;
    linear + 4.0 * (c.num_heads * c.head_dim * c.num_layers) as f64 * length as f64 / 2.0
}

pub(crate) fn decode() -> Outcome {
    println!(
        "| model | streams | context | ms a step | tokens/s | GB/s | ms of the GPU alone | us between steps: median, 90 %, most |\n|---|---|---|---|---|---|---|---|"
    );
    for (name, config, tokens) in models() {
        let mut driver = Driver::new(load(&config, tokens, Options::default())?);
        let mut random = Random(4);
        say_ways(name, &driver.executor);
        let (weights, kv) = bytes(&driver, &config);
        for streams in [1u32, 2, 4, 8, 16, 20, 32, 64, 100, 128, 256] {
            read(&mut driver, 0..streams, CONTEXT, &mut random);
            let slots: Vec<u32> = (0..streams).collect();
            let steps = if streams <= 16 { 128 } else { 48 };
            let ms = decode_steps(&mut driver, &slots, steps);
            let context = CONTEXT + steps / 2;
            let moved = weights + f64::from(streams) * context as f64 * kv;
            let rate = f64::from(streams) * 1e3 / ms;
            driver.executor.mark_steps();
            decode_steps(&mut driver, &slots, 40);
            let mut idle = driver.executor.idle_between_steps()?;
            // The first steps run before the clock starts.
            let mut idle = idle.split_off(4);
            idle.sort_by(f32::total_cmp);
            let at = |share: f32| idle[((idle.len() - 1) as f32 * share) as usize];
            slots.iter().for_each(|s| driver.free(*s));
            driver.forget();
            let gpu = driver.executor.profile_size(streams as usize, context)?.milliseconds;
            println!(
                "| {name} | {streams} | {context} | {ms:.3} | {rate:.0} | {:.0} | {gpu:.3} | {:.1}, {:.1}, {:.1} |",
                moved / ms / 1e6,
                at(0.5),
                at(0.9),
                at(1.0)
            );
        }
        let (mut best, mut all) = (f64::MAX, Vec::new());
        for _ in 0..5 {
            let seconds = read(&mut driver, 0..1, CONTEXT, &mut random);
            driver.free(0);
            best = best.min(seconds);
            all.push(format!("{:.1}", seconds * 1e3));
        }
        println!("{name}: first token of a 1k prompt in process: {:.1} ms ({})", best * 1e3, all.join(", "));
    }
    Ok(())
}

/// Which products the clock has chosen for steps of many rows.
fn say_ways(name: &str, executor: &CudaExecutor) {
    let sizes = [160, 256, 384, 1024, 4096, 8192];
    let ways: Vec<String> = sizes.iter().map(|&rows| format!("{rows} {:?}", executor.ways(rows).0)).collect();
    println!("{name}: layers of {}", ways.join(", "));
}

pub(crate) fn prefill() -> Outcome {
    println!("| model | prompts | tokens/s | TFLOP/s |\n|---|---|---|---|");
    for (name, config, tokens) in models() {
        let mut driver = Driver::new(load(&config, tokens, Options::default())?);
        let mut random = Random(5);
        say_ways(name, &driver.executor);
        for (count, length) in [(1u32, 1024), (1, 4096), (1, 8192), (32, 4096), (8, 8192)] {
            let mut best = f64::MAX;
            for _ in 0..2 {
                best = best.min(read(&mut driver, 0..count, length, &mut random));
                (0..count).for_each(|s| driver.free(s));
            }
            let total = f64::from(count) * length as f64;
            println!(
                "| {name} | {count} x {length} | {:.0} | {:.0} |",
                total / best,
                total * operations(&config, length) / best / 1e12
            );
        }
    }
    Ok(())
}

/// Early launches in all their forms.
pub(crate) fn early() -> Outcome {
    let forms = [
        ("none", EarlyLaunch::OFF),
        ("rows", EarlyLaunch { rows: true, ..EarlyLaunch::OFF }),
        ("products", EarlyLaunch { products: true, ..EarlyLaunch::OFF }),
        ("all at once", EarlyLaunch { late: false, ..EarlyLaunch::ALL }),
        ("all", EarlyLaunch::ALL),
    ];
    println!("| model | early | ms, 1 stream | ms, 8 | ms, 16 |\n|---|---|---|---|---|");
    for (name, config, _) in models() {
        let mut driver = Driver::new(load(&config, 40_000, Options { tune: false, ..Options::default() })?);
        for round in 0..2 {
            for (form, early) in forms {
                driver.executor.set_early(early);
                let mut cells = Vec::new();
                for streams in [1u32, 8, 16] {
                    read(&mut driver, 0..streams, CONTEXT, &mut Random(6));
                    let slots: Vec<u32> = (0..streams).collect();
                    cells.push(format!("{:.3}", decode_steps(&mut driver, &slots, 64)));
                    slots.iter().for_each(|s| driver.free(*s));
                }
                println!("| {name}, {round} | {form} | {} |", cells.join(" | "));
            }
        }
    }
    Ok(())
}

/// Where a step's time goes.
pub(crate) fn profile() -> Outcome {
    for (name, config, tokens) in models() {
        let mut executor = load(&config, tokens, Options::default())?;
        for rows in [1, 8, 20, 32, 64, 100, 128, 256] {
            println!(
                "{name}, {rows} rows at {CONTEXT}, attention in up to {} parts",
                executor.attention_parts(rows)
            );
            for row in executor.profile_decode(rows, CONTEXT)? {
                println!(
                    "  {:<10} {:>4} launches {:>9.1} us {:>8.2} us each {:>7.0} MB {:>6.0} GB/s  {}",
                    row.name,
                    row.launches,
                    row.microseconds,
                    row.microseconds / row.launches as f64,
                    row.bytes as f64 / 1e6,
                    row.bytes as f64 / row.microseconds / 1e3,
                    row.fused
                );
            }
        }
        for (prompts, length) in [(1, 1024), (2, 4096), (1, 8192)] {
            println!("{name}, {prompts} prompts of {length}");
            for row in executor.profile_prefill(prompts, length)? {
                println!(
                    "  {:<10} {:>4} launches {:>9.1} us {:>8.2} us each {:>6.0} TFLOP/s",
                    row.name,
                    row.launches,
                    row.microseconds,
                    row.microseconds / row.launches as f64,
                    row.operations as f64 / row.microseconds / 1e6,
                );
            }
        }
    }
    Ok(())
}

/// From nothing to ready, weights made on the GPU.
pub(crate) fn ready() -> Outcome {
    for (name, config, tokens) in models() {
        let start = Instant::now();
        let executor = load(&config, tokens, Options::default())?;
        println!(
            "{name} on {}: ready in {:.2} s; {}",
            executor.device_name(),
            start.elapsed().as_secs_f64(),
            executor.memory_plan()
        );
    }
    Ok(())
}
