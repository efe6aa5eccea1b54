//! `cargo xtask bench batching`: what the scheduler adds to a call of a backend, and what batching trades latency for.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each cell runs, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let built = build::server_and_backends(workspace, Profile::Release)?;
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--release", "--package", "trireme-runtime", "--example", "batching"]);
    process::run(&mut cargo, "the build of the benchmark")?;
    let mut bench = Command::new(workspace.target.join("release/examples/batching"));
    bench.arg(&built.backends).arg(args.seconds.to_string());
    let output = bench.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| process::not_started(&bench, &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let path = workspace.target.join("bench/batching.md");
    fs::create_dir_all(workspace.target.join("bench")).context("cannot make target/bench")?;
    fs::write(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{text}");
    anyhow::ensure!(output.status.success(), "the benchmark misses its bar or failed ({})", output.status);
    Ok(())
}
