//! Builds `simulate`, as it is or with a fault.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// A program that simulates seeds.
pub(crate) struct Program(PathBuf);

impl Program {
    /// Built in a folder of its own: arithmetic that overflows is an error here, and faults must not get into
    /// what others build on.
    pub(crate) fn build(workspace: &Workspace, mutant: Option<&str>) -> Result<Self> {
        let rustc = process::output(Command::new("rustc").arg("-vV"), "rustc")?;
        let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc has no host")?;
        let folder = workspace.target.join("sim");
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["build", "--release", "--quiet", "--package", "trireme-scheduling"]);
        cargo.args(["--features", "simulation", "--bin", "simulate"]);
        // With a target named, the flags are not for build scripts and macros, which are then built once.
        cargo.args(["--target", host, "--target-dir"]).arg(&folder);
        cargo.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        if let Some(mutant) = mutant {
            // A fault is found within a moment; the build is what takes time.
            cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
            cargo.env("RUSTFLAGS", format!("--cfg trireme_mutant=\"{mutant}\""));
            cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
        }
        process::run(&mut cargo, "cargo build of the simulation")?;
        Ok(Self(folder.join(host).join("release/simulate")))
    }

    /// Simulates some seeds; its output can be read.
    pub(crate) fn command(&self, first: u64, seeds: u64, events: u64) -> Command {
        let mut command = Command::new(&self.0);
        command.args([first, seeds, events].map(|number| number.to_string()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}
