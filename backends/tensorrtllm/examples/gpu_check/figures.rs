//! The figures that count, in three rounds, each beside the ceilings of its round.

use crate::Outcome;
use crate::bench::{CONTEXT, bytes, decode_steps, load, measured_ceilings, models, operations, read};
use crate::driver::Driver;
use crate::random::Random;
use trireme_tensorrtllm::Options;

const ROUNDS: usize = 3;

const STREAMS: [u32; 4] = [1, 32, 128, 256];

const PROMPTS: [(u32, usize); 2] = [(32, 4096), (8, 8192)];

const STEPS: usize = 24;

/// A figure of each round, and its share of the ceiling of the round.
struct Figure {
    what: String,
    unit: &'static str,
    seen: Vec<(f64, f64)>,
}

impl Figure {
    fn print(&self, model: &str) {
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = self.seen.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            (values[values.len() / 2], values[0], values[values.len() - 1])
        };
        let ((value, low, high), (share, least, most)) = (of(|seen| seen.0), of(|seen| seen.1 * 100.0));
        println!(
            "| {model} | {} | {value:.0} [{low:.0}, {high:.0}] {} | {share:.1} [{least:.1}, {most:.1}] % |",
            self.what, self.unit
        );
    }
}

pub(crate) fn run() -> Outcome {
    for (name, config, tokens) in models() {
        let mut driver = Driver::new(load(&config, tokens, Options::default())?);
        let (weights, kv) = bytes(&driver, &config);
        let mut figures: Vec<Figure> = STREAMS
            .iter()
            .map(|n| (format!("decode, {n} streams at 1k"), "tokens/s"))
            .chain(PROMPTS.iter().map(|(n, length)| (format!("prompts {n} x {length}"), "tokens/s")))
            .map(|(what, unit)| Figure { what, unit, seen: Vec::new() })
            .collect();
        let mut ceilings = Vec::new();
        for round in 0..ROUNDS {
            let (copy, product) = measured_ceilings()?;
            ceilings.push(format!("{copy:.0} GB/s and {product:.0} TFLOP/s"));
            let mut random = Random(20 + round as u64);
            let most = STREAMS[STREAMS.len() - 1];
            // Of each text.
            let mut lengths = Vec::new();
            for (figure, streams) in figures.iter_mut().zip(STREAMS) {
                // Only those that are new: right behind the prompts of all streams the GPU is at its limit of power, and a
                // step of one stream a fiftieth (8B) to a tenth (1B) longer.
                read(&mut driver, lengths.len() as u32..streams, CONTEXT, &mut random);
                lengths.resize(streams as usize, CONTEXT);
                let slots: Vec<u32> = (0..streams).collect();
                let ms = decode_steps(&mut driver, &slots, STEPS);
                // In the middle of the steps that count, four more were in front of them.
                let positions: usize = lengths.iter().map(|length| length + 4 + STEPS / 2).sum();
                lengths.iter_mut().for_each(|length| *length += STEPS + 4);
                let moved = weights + positions as f64 * kv;
                figure.seen.push((f64::from(streams) * 1e3 / ms, moved / ms / 1e6 / copy));
            }
            (0..most).for_each(|slot| driver.free(slot));
            driver.forget();
            for (figure, (count, length)) in figures[STREAMS.len()..].iter_mut().zip(PROMPTS) {
                let seconds = read(&mut driver, 0..count, length, &mut random);
                (0..count).for_each(|slot| driver.free(slot));
                let total = f64::from(count) * length as f64;
                let rate = total * operations(&config, length) / seconds / 1e12;
                figure.seen.push((total / seconds, rate / product));
            }
            driver.forget();
        }
        println!("{name}: copy and product of the rounds: {}", ceilings.join("; "));
        println!(
            "| model | what | median of {ROUNDS} [lowest, highest] | of the ceiling |\n|---|---|---|---|"
        );
        figures.iter().for_each(|figure| figure.print(name));
    }
    Ok(())
}
