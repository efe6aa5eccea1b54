//! Simulates seeds one after the other: `simulate FIRST_SEED SEEDS EVENTS`, events for each seed.
//!
//! Prints every count as `number name`; on the first broken promise also `broken`, what is broken, and the
//! minimal script, and ends with exit code 1. `cargo xtask sim` runs one on each core.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is for `cargo xtask sim`")]

use std::panic;
use std::process::ExitCode;

use trireme_scheduling::simulation::{Counts, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(seeds)), Some(Ok(events)), None) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        eprintln!("usage: simulate FIRST_SEED SEEDS EVENTS");
        return ExitCode::from(2);
    };
    // A panic is seen once, of the minimal script.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut total = Counts::default();
    for seed in (0..seeds).map(|n| first.wrapping_add(n)) {
        match run(seed, events) {
            Ok(counts) => total += counts,
            Err(failure) => {
                let (counts, failure) = *failure;
                total += counts;
                print(&total);
                println!("broken");
                println!("seed {}: {}", failure.seed, failure.finding);
                println!("{} events of {}:", failure.script.events.len(), failure.found_with);
                println!("{}", failure.script);
                panic::set_hook(hook);
                // It ends as it did before.
                let _ = failure.script.run();
                return ExitCode::FAILURE;
            }
        }
    }
    print(&total);
    ExitCode::SUCCESS
}

fn print(counts: &Counts) {
    println!("{} events", counts.events());
    counts.named().for_each(|(name, count)| println!("{count} {name}"));
}
