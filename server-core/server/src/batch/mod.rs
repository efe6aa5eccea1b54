//! `trireme batch`: the lines of a file through a model, in this process and without a network.
//!
//! ```text
//! in.jsonl ─▶ lines ─▶ up to --concurrency calls in the core at a time ─▶ answers in the order of their lines ─▶ out.jsonl
//! ```
//! Line n of the output answers line n of the input (blank lines do not count). So the output itself says how far a run
//! has come: after a kill at whatever byte the same command cuts off what was half written and goes on behind it.

mod call;
mod input;
mod models;
mod output;
mod progress;
mod run;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use self::run::Ended;
use crate::cli::Batch;
use crate::leave::EXIT_DEVICE_LOST;

/// Told to end before all lines had their answers: the same command goes on.
const EXIT_NOT_COMPLETE: u8 = 75;
/// Files, models, a full disk.
const EXIT_CANNOT_GO_ON: u8 = 1;
/// Told to end twice.
const EXIT_SECOND_SIGNAL: u8 = 4;

/// A device is of no use to this process any more; what it said.
#[derive(Debug, thiserror::Error)]
#[error("a device is lost to this process: {0}; what is written is kept, the same command goes on")]
struct DeviceLost(Arc<str>);

/// Answers all lines; 0 if each has its answer, 75 if a signal came before, 70 if a device is lost, 1 if it cannot go on.
#[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
pub fn batch(flags: &Batch) -> ExitCode {
    match run(flags) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let lost = error.root_cause().is::<DeviceLost>();
            ExitCode::from(if lost { EXIT_DEVICE_LOST } else { EXIT_CANNOT_GO_ON })
        }
    }
}

fn run(flags: &Batch) -> anyhow::Result<ExitCode> {
    // What is wrong with the files is said before a model is loaded for them.
    let mut input = input::Lines::open(&flags.input)?;
    let (output, done) = output::Output::resume(&flags.output, &mut input)?;
    let rest = input.count_rest()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("batch")
        .enable_all()
        .build()
        .context("no threads to read and write on")?;
    let models = models::Models::load(flags)?;
    let ended = runtime.block_on(run::run(&models, input, output, run::Plan { done, rest, flags }));
    models.end(flags.exit_timeout_secs);
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Complete => ExitCode::SUCCESS,
        Ended::Told => ExitCode::from(EXIT_NOT_COMPLETE),
        Ended::ToldTwice => ExitCode::from(EXIT_SECOND_SIGNAL),
    })
}
