//! `cargo xtask serve`: from a clone to a server in one command.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::models;
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Fetch nothing: models without their weights are shown as unavailable
    #[arg(long)]
    no_models: bool,
    /// The examples of model_repository_onnx/ too: they need ONNX Runtime (91 MB more to fetch) and numpy
    #[arg(long, conflicts_with = "no_models")]
    onnx: bool,
    /// Further flags for `trireme serve`, after `--`
    #[arg(last = true)]
    flags: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    println!("building (the first build takes minutes, the next one a moment)");
    let built = build::server_and_backends(workspace, args.profile)?;
    if !args.no_models {
        models::fetch_examples(workspace)?;
    }
    if args.onnx {
        require_numpy()?;
        models::fetch_onnxruntime(workspace, args.profile)?;
        models::fetch_onnx_examples(workspace)?;
    }
    let mut server = Command::new(&built.server);
    server.current_dir(&workspace.root).arg("serve");
    let given = |name: &str| args.flags.iter().any(|flag| flag.split('=').next() == Some(name));
    if !given("--model-repository") && !given("--model-store") {
        server.arg("--model-repository").arg(workspace.model_repository());
        if args.onnx {
            server.arg("--model-repository").arg(workspace.onnx_repository());
        }
    }
    if !given("--backend-directory") {
        server.arg("--backend-directory").arg(&built.backends);
    }
    if args.no_models && !given("--exit-on-error") {
        server.arg("--exit-on-error=false");
    }
    // A machine without a GPU can try every example.
    server.arg("--backend-fallback=tensorrtllm=cpu").args(&args.flags);
    // The server takes this process's place, so that signals and the exit code are its own.
    let error = server.exec();
    Err(process::not_started(&server, &error))
}

/// Some of the examples are written in Python.
fn require_numpy() -> Result<()> {
    let mut python = Command::new("python3");
    match process::output(python.args(["-c", "import numpy"]), "python3") {
        Ok(_) => Ok(()),
        Err(_) => bail!(
            "the examples of --onnx need numpy in python3: install it (Debian: `apt install python3-numpy`)"
        ),
    }
}
