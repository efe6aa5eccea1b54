//! `cargo xtask test`: every check in five tiers, each with its time and its cap.
//!
//! ```text
//! build   everything once, tests included
//! unit    unit, property and simulation tests of every crate
//! e2e     the real server, real clients: the `tests` crate and tests/python
//! deploy  a real Slurm, helm, balancer and container; as root, what is missing of them is installed
//! rest    format, clippy, house rules, doc tests, licences
//! ```

mod counts;
mod deny;
mod onnx_cases;
mod python;
mod record;
mod runner;
mod tiers;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use self::counts::Counts;
pub(crate) use self::python::{environment as python_environment, installed as python_installed};
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what is too long for every change; the result is recorded in docs/full-test.md
    #[arg(long)]
    full: bool,
    /// Only this tier
    #[arg(value_enum)]
    tier: Option<Tier>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    Build,
    Unit,
    E2e,
    Deploy,
    Rest,
}

impl Tier {
    const ALL: [Self; 5] = [Self::Build, Self::Unit, Self::E2e, Self::Deploy, Self::Rest];

    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Unit => "unit",
            Self::E2e => "e2e",
            Self::Deploy => "deploy",
            Self::Rest => "rest",
        }
    }

    /// Seconds after which a tier is stopped, about twice what each takes on two cores with nothing beside it. All of them
    /// together, from nothing, are meant to take less than 35 minutes.
    fn cap(self, full: bool) -> u64 {
        let seconds = match self {
            Self::Build => 1560,
            Self::Unit => 400,
            Self::E2e => 840,
            Self::Deploy => 420,
            Self::Rest => 540,
        };
        if full { seconds * 6 } else { seconds }
    }
}

/// What a tier found: tests that were counted, and steps that failed without a count.
#[derive(Default)]
struct Findings {
    counts: Counts,
    broken: Vec<String>,
}

/// Runs the tiers. The last line printed is the count, whatever happened.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let tiers: Vec<Tier> = args.tier.map_or_else(|| Tier::ALL.to_vec(), |tier| vec![tier]);
    let (mut total, mut broken, mut lines) = (Counts::default(), Vec::new(), Vec::new());
    for tier in tiers {
        let (name, cap) = (tier.name(), tier.cap(args.full));
        println!("tier {name} (cap {cap} s)");
        let watch = Stopwatch::start();
        let findings = tiers::run(workspace, tier, args.full, watch, cap);
        let seconds = watch.elapsed().as_secs();
        let line = format!("tier {name} … {seconds} s (cap {cap} s), {}", findings.counts);
        println!("{line}");
        lines.push(line);
        total += findings.counts;
        let failed = !findings.broken.is_empty();
        broken.extend(findings.broken.into_iter().map(|what| format!("{name}: {what}")));
        if seconds > cap {
            broken.push(format!("{name}: took {seconds} s, over its cap of {cap} s"));
        }
        if failed && tier == Tier::Build {
            break;
        }
    }
    if args.full && args.tier.is_none() {
        record::write(workspace, &lines, &total, &broken)?;
    }
    println!();
    for line in lines.iter().chain(&broken) {
        println!("{line}");
    }
    // A step that failed without naming a test counts as one, so that the last line never looks clean when it is not.
    let unnamed = if total.failed == 0 { broken.len() as u64 } else { 0 };
    println!("{} passed, {} failed", total.passed, total.failed + unnamed);
    let clean = total.failed == 0 && broken.is_empty();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
