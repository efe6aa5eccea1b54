//! The project's own commands. `cargo xtask help` lists them; one module a command.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

mod bench;
mod build;
mod deploy;
mod dist;
mod kernels;
mod models;
mod new_backend;
mod process;
mod qa;
mod serve;
mod sim;
mod stopwatch;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Trireme's own commands", version = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the server and every backend into target/<profile>/{trireme,backends/<name>/}
    Build(build::Args),
    /// Compile the CUDA kernels into target/kernels/ARCH/; fails if a hot one spills registers
    Kernels,
    /// Write what a GPU machine needs, server, backends and compiled kernels, into one folder that runs as it is
    Dist(dist::Args),
    /// Fetch the weights of the example models into model_repository/
    Models(models::Args),
    /// Build, fetch the weights and serve model_repository/
    Serve(serve::Args),
    /// Run every test in tiers with times and caps
    Test(test::Args),
    /// Run the scripts of deploy/slurm on a real Slurm that is started for it
    TestSlurm,
    /// Restart servers behind a real balancer under load and count what is lost
    TestRollout(deploy::RolloutArgs),
    /// Check the chart and the manifests against helm, schemas, published types and the real server
    TestDeploy,
    /// Build a container image without a Docker engine, with its bill of materials
    Image(deploy::image::Args),
    /// Run Triton's own QA clients against the server
    Qa(qa::Args),
    /// Simulate the scheduler from seeds: random models, clients, failures and reloads
    Sim(sim::Args),
    /// Check the house rules: who may know whom, where versions and unsafe live, file sizes
    Tidy,
    /// Start a new backend from the template
    NewBackend(new_backend::Args),
    /// Measure against peers, side by side in one run
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Workspace::load().and_then(|workspace| {
        match cli.command {
            Command::Build(args) => build::run(&workspace, &args),
            Command::Kernels => kernels::run(&workspace).map(drop),
            Command::Dist(args) => dist::run(&workspace, &args),
            Command::Models(args) => models::run(&workspace, &args),
            Command::Serve(args) => serve::run(&workspace, &args),
            Command::Test(args) => return test::run(&workspace, &args),
            Command::Sim(args) => return sim::run(&workspace, &args),
            Command::Qa(args) => qa::run(&workspace, &args),
            Command::TestSlurm => deploy::test_slurm(&workspace),
            Command::TestRollout(args) => deploy::test_rollout(&workspace, &args),
            Command::TestDeploy => deploy::test_deploy(&workspace),
            Command::Image(args) => deploy::image::run(&workspace, &args),
            Command::Tidy => tidy::run(&workspace),
            Command::NewBackend(args) => new_backend::run(&workspace, &args),
            Command::Bench(args) => bench::run(&workspace, &args),
        }?;
        Ok(ExitCode::SUCCESS)
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
