//! `cargo xtask sim`: the scheduler under random weather, on every core.
//!
//! The work is done by `simulate` of `server-core/scheduling`, one process a core; here seeds are handed out and
//! counts are put together. The first broken promise ends it with the seed and the minimal script.

mod mutants;
mod program;
mod spread;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::program::Program;
use self::spread::{Outcome, Range};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events of all seeds together
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Show that every fault that can be built in on purpose is found
    #[arg(long)]
    mutants: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.mutants {
        mutants::run(workspace)?;
        return Ok(ExitCode::SUCCESS);
    }
    let kept = simulate(workspace, args.seed, args.seeds, args.events)?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `cargo xtask test` runs.
pub(crate) fn test(workspace: &Workspace, full: bool) -> Result<()> {
    let (seeds, events) = if full { (1_000, 100_000_000) } else { (100, 2_000_000) };
    println!("  simulation of the scheduler");
    if !simulate(workspace, 1, seeds, events)? {
        bail!("a promise is broken; its script is above");
    }
    if full { mutants::run(workspace) } else { Ok(()) }
}

/// Whether every promise was kept.
fn simulate(workspace: &Workspace, seed: u64, seeds: u64, events: u64) -> Result<bool> {
    let program = Program::build(workspace, None)?;
    let seeds = seeds.max(1);
    let each = events.div_ceil(seeds);
    let Outcome { counts, wall, cpu, broken } = spread::run(&program, Range { first: seed, seeds }, each)?;
    for (name, count) in &counts {
        println!("  {count:>12} {name}");
    }
    let total = counts.first().map_or(0, |(_, count)| *count) as f64;
    let (a_second, a_cpu_second) = (total / wall / 1e6, total / cpu.max(0.01) / 1e6);
    println!("  {wall:.1} s, {a_second:.2} million events/s, {a_cpu_second:.2} million a CPU second");
    match broken {
        Some(text) => {
            println!("\n{}\n", text.trim_end());
            println!("again: cargo xtask sim --seed <its seed> --events {each}");
            Ok(false)
        }
        None => Ok(true),
    }
}
