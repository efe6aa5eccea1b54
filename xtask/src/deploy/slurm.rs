//! `cargo xtask test-slurm`: the scripts of `deploy/slurm` on a real Slurm that is started for it.

use anyhow::Result;

use super::{debian, pytest, ready_to_serve};
use crate::process;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    debian::need(&[("slurmctld", "slurm-wlm"), ("slurmd", "slurm-wlm"), ("munged", "munge")])?;
    let python = ready_to_serve(workspace)?;
    let mut tests = pytest(workspace, &python, &workspace.root.join("tests/slurm"));
    process::run(&mut tests, "the tests on Slurm")
}
