//! `cargo xtask dist`: one folder that runs where it is put: the server, its programs beside it, the backends under
//! `backends/`, the kernels inside of the CUDA backend.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::{self, Built, Profile};
use crate::kernels;
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder; it must not exist yet, or be one of an earlier run
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `dist` is what is shipped (LTO); `release` builds faster
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
}

/// Programs that the server hands over to.
pub(crate) const PROGRAMS: [&str; 3] = ["trireme", "trireme-plan", "trireme-gpu"];

/// Builds the server and the backends, with the compiled kernels inside of the CUDA backend.
pub(crate) fn with_kernels(workspace: &Workspace, profile: Profile) -> Result<Built> {
    let kernels = kernels::run(workspace)?;
    build::server_and_backends(workspace, profile)?;
    // Once more, with the kernels inside.
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--profile", profile.name(), "--package", "trireme-backend-tensorrtllm"]);
    cargo
        .args(["--features", "trireme-backend-tensorrtllm/embedded-kernels"])
        .env("TRIREME_KERNELS", kernels);
    process::run(&mut cargo, "cargo build")?;
    build::install(workspace, profile)
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let built = with_kernels(workspace, args.profile)?;
    let out = args.out.clone().unwrap_or_else(|| workspace.target.join("trireme"));
    let folder = built.server.parent().unwrap_or(&workspace.target);
    let backends = fs::read_dir(&built.backends).context("the installed backends")?;
    let mut files: Vec<(PathBuf, PathBuf)> =
        PROGRAMS.iter().map(|name| (folder.join(name), out.join(name))).collect();
    for entry in backends {
        let entry = entry?;
        // Misbehaves on request, and GPUs that are none: for tests only.
        if entry.file_name() == "hostile" || entry.file_name() == "guarded" {
            continue;
        }
        for file in fs::read_dir(entry.path())? {
            let file = file?;
            files.push((file.path(), out.join("backends").join(entry.file_name()).join(file.file_name())));
        }
    }
    let mut bytes = 0;
    for (from, to) in &files {
        let shown = workspace.shown(from);
        fs::create_dir_all(to.parent().unwrap_or(&out))
            .with_context(|| format!("cannot make {}", out.display()))?;
        // A copy: what is stripped below must not be the build's own file.
        let _ = fs::remove_file(to);
        fs::copy(from, to).with_context(|| format!("cannot copy {shown}"))?;
        let mut strip = std::process::Command::new("strip");
        process::run(strip.arg("--strip-unneeded").arg(to), "strip")?;
        bytes += fs::metadata(to)?.len();
    }
    println!("{}: {} files, {} MB", workspace.shown(&out), files.len(), bytes / 1_000_000);
    Ok(())
}
