//! Graphs against none, fusion on against off, a static profile against the usual sizes: in turns, behind one tuning table.

use std::time::Instant;

use trireme_llm::checkpoint::DecoderConfig;
use trireme_llm::executor::Executor;
use trireme_tensorrtllm::Options;
use trireme_tensorrtllm::tuning::Store;

use crate::Outcome;
use crate::bench::{CONTEXT, decode_steps, load, models, read};
use crate::driver::Driver;
use crate::random::Random;

/// Sequences at a time; `GPU_CHECK_STREAMS=20,32` names others, up to 128, and `GPU_CHECK_MODEL=1B` the end of a model's name.
const STREAMS: [u32; 6] = [1, 8, 20, 32, 100, 128];

fn streams() -> Vec<u32> {
    let given = std::env::var("GPU_CHECK_STREAMS").unwrap_or_default();
    let given: Vec<u32> = given.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    if given.is_empty() { STREAMS.to_vec() } else { given }
}

/// Times that each way is timed, in turns.
const TURNS: usize = 5;

const STEPS: usize = 28;

/// Positions that a text may come to, warm-up and all.
const ROOM: usize = CONTEXT + TURNS * (STEPS + 4) + 64;

/// Milliseconds a step, each of the turns.
type Times = Vec<f64>;

/// In turns, so that the GPU's state is the same for all; contexts grow alike.
fn turns(drivers: &mut [&mut Driver], streams: u32) -> Vec<Times> {
    let slots: Vec<u32> = (0..streams).collect();
    for driver in drivers.iter_mut() {
        read(driver, 0..streams, CONTEXT, &mut Random(6));
    }
    let mut times = vec![Vec::new(); drivers.len()];
    for _ in 0..TURNS {
        for (driver, times) in drivers.iter_mut().zip(&mut times) {
            times.push(decode_steps(driver, &slots, STEPS));
        }
    }
    for driver in drivers.iter_mut() {
        slots.iter().for_each(|s| driver.free(*s));
        driver.forget();
    }
    times
}

fn cell(mut times: Times) -> String {
    times.sort_by(f64::total_cmp);
    format!("{:.3} [{:.3}, {:.3}]", times[times.len() / 2], times[0], times[times.len() - 1])
}

/// One load, and a line on how long it took and where its choices come from.
fn loaded(
    model: &str,
    what: &str,
    config: &DecoderConfig,
    options: Options,
) -> Result<Driver, Box<dyn std::error::Error>> {
    let (start, tokens) = (Instant::now(), options.max_slots * ROOM);
    let driver = Driver::new(load(config, tokens, options)?);
    let report = driver.executor.tuning();
    println!(
        "{model}, {what}: ready after {:.2} s; {} choices timed, {} left, from {:?}",
        start.elapsed().as_secs_f64(),
        report.timed,
        report.left,
        report.origin
    );
    let ways: Vec<String> = streams()
        .into_iter()
        .filter(|streams| *streams as usize <= driver.executor.info().max_slots)
        .map(|streams| format!("{streams} {:?}", driver.executor.ways(streams as usize)))
        .collect();
    println!("   {}", ways.join(", "));
    Ok(driver)
}

pub(crate) fn run() -> Outcome {
    let only = std::env::var("GPU_CHECK_MODEL").unwrap_or_default();
    for (name, config, _) in models().into_iter().filter(|(name, ..)| name.ends_with(&only)) {
        let kept = tempfile::tempdir()?;
        let tuning = Store { plan: None, folder: Some(kept.path().to_owned()) };
        let plain = Options { max_slots: 128, tuning, ..Options::default() };
        let mut usual = loaded(name, "as it is", &config, plain.clone())?;
        {
            let without = Options { graphs: false, ..plain.clone() };
            let mut eager = loaded(name, "no graphs", &config, without)?;
            let without = Options { skinny_rows: 0, ..plain.clone() };
            let mut plainly = loaded(name, "no fusion", &config, without)?;
            println!(
                "| model | streams | as it is, ms a step | no graphs | no fusion |\n|---|---|---|---|---|"
            );
            for streams in streams() {
                let times = turns(&mut [&mut usual, &mut eager, &mut plainly], streams);
                let cells: Vec<String> = times.into_iter().map(cell).collect();
                println!("| {name} | {streams} | {} |", cells.join(" | "));
            }
        }
        let mut rows = Vec::new();
        for streams in streams() {
            let sizes = vec![streams as usize];
            let options = Options { max_slots: streams as usize, decode_sizes: sizes, ..plain.clone() };
            let mut fixed = loaded(name, &format!("static {streams}"), &config, options)?;
            let times = turns(&mut [&mut usual, &mut fixed], streams);
            let cells: Vec<String> = times.into_iter().map(cell).collect();
            rows.push(format!("| {name} | {streams} | {} |", cells.join(" | ")));
        }
        println!(
            "| model | streams | usual sizes, ms a step | static profile |\n|---|---|---|---|\n{}",
            rows.join("\n")
        );
        drop(usual);
        loaded(name, "as it is, again", &config, plain)?;
    }
    Ok(())
}
