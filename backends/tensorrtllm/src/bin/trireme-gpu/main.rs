//! `trireme-gpu`: what `trireme explain` and `trireme profile` hand over to, and the compiler of the kernels.
#![allow(clippy::print_stderr)]

mod kernels;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use trireme_tensorrtllm::OfflineModel;

#[derive(Parser)]
#[command(name = "trireme-gpu", about = "Looks at models on an NVIDIA GPU", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a step as it is launched: kernels, what is fused in each, bytes, time, share of the floor
    Explain {
        #[command(flatten)]
        model: ModelArgs,
        /// Sequences of the step
        #[arg(long, default_value_t = 1)]
        rows: usize,
        /// Positions of each; 1024, or as many as the model has
        #[arg(long)]
        context: Option<usize>,
        /// Whether norms and activations are computed inside of the products beside them; as the model says if not given
        #[arg(long, action = clap::ArgAction::Set)]
        fusion: Option<bool>,
    },
    /// Show the sizes that steps are padded to: the share of padding, the memory of their graphs, their time
    Profile {
        #[command(flatten)]
        model: ModelArgs,
        /// Positions of each sequence; 1024, or as many as the model has
        #[arg(long)]
        context: Option<usize>,
    },
    /// Compile the kernels with NVRTC; no GPU is needed
    Kernels(kernels::Args),
}

#[derive(Args)]
struct ModelArgs {
    /// A model's directory, a checkpoint directory or a .gguf file
    model: PathBuf,
    /// The model's configuration as JSON; `trireme` adds that of a model's directory
    #[arg(long, value_name = "JSON", default_value = "null")]
    config: String,
    /// Which GPU
    #[arg(long, default_value_t = 0)]
    gpu: i32,
    /// Where choices of kernels are kept, `off` for nowhere; the folder for caches of the user if not given
    #[arg(long, value_name = "DIR")]
    tuning_cache: Option<String>,
    /// The same for kernels that NVRTC has compiled
    #[arg(long, value_name = "DIR")]
    kernel_cache: Option<String>,
}

impl ModelArgs {
    fn open(&self) -> anyhow::Result<OfflineModel> {
        let config = serde_json::from_str(&self.config).context("--config")?;
        let model = OfflineModel::open(&self.model, &config, self.gpu)?;
        Ok(model.keeping(self.tuning_cache.as_deref(), self.kernel_cache.as_deref())?)
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Explain { model, rows, context, fusion } => {
            model.open().and_then(|model| report::explain(model, rows, context, fusion))
        }
        Command::Profile { model, context } => {
            model.open().and_then(|model| report::profile(&model, context))
        }
        Command::Kernels(args) => kernels::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A reader who has seen enough (`| head`) is no failure.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
