//! `cargo xtask bench`: figures that count only next to a peer or a limit measured in the same run.

mod backends;
mod batch;
mod batching;
mod frontend;
mod llm_cpu;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Models in Python next to tritonserver's backend for them, MiniLM next to ONNX Runtime called directly
    Backends(backends::Args),
    /// `trireme batch` next to the engine's own benchmark
    Batch(batch::Args),
    /// What the scheduler adds to a call of a backend, and what batching trades latency for; in process
    Batching(batching::Args),
    /// HTTP and gRPC `identity` next to a real tritonserver and a bare echo of the same bytes
    Frontend(frontend::Args),
    /// The CPU engine next to llama.cpp (SmolLM2) and onnxruntime (MiniLM)
    LlmCpu(llm_cpu::Args),
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    match &args.what {
        What::Backends(args) => backends::run(workspace, args),
        What::Batch(args) => batch::run(workspace, args),
        What::Batching(args) => batching::run(workspace, args),
        What::Frontend(args) => frontend::run(workspace, args),
        What::LlmCpu(args) => llm_cpu::run(workspace, args),
    }
}
