//! Deployments tried for real: a local Slurm, manifests against the real helm and published types, an image that is built
//! and run without a container engine's daemon. What they need is installed by them: Debian packages by apt, the rest by
//! pinned version into `target/`.

mod debian;
pub(crate) mod image;
mod sbom;
mod slurm;
mod types;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::models;
use crate::process;
use crate::test::{python_environment, python_installed};
use crate::workspace::Workspace;

pub(crate) use self::slurm::run as test_slurm;

/// `cargo xtask test-deploy`: the chart, the examples for KServe and the scripts' flags.
pub(crate) fn test_deploy(workspace: &Workspace) -> Result<()> {
    debian::need(&[("node", "nodejs"), ("npm", "npm"), ("promtool", "prometheus")])?;
    build::server_and_backends(workspace, Profile::Release)?;
    let folder = workspace.root.join("tests/deploy");
    let python =
        python_installed(workspace, &folder.join("requirements.txt"), &workspace.target.join("deploy-venv"))?;
    let types = types::install(workspace, &folder)?;
    let mut tests = pytest(workspace, &python, &folder);
    tests.env("TRIREME_DEPLOY_TYPES", types);
    process::run(&mut tests, "the tests of the manifests")
}

/// `cargo xtask test-rollout`: restarts behind a real balancer lose nothing.
pub(crate) fn test_rollout(workspace: &Workspace, args: &RolloutArgs) -> Result<()> {
    debian::need(&[("haproxy", "haproxy")])?;
    let python = ready_to_serve(workspace)?;
    let mut tests = pytest(workspace, &python, &workspace.root.join("tests/rollout"));
    // What was counted is part of the result.
    tests.arg("-s");
    if args.full {
        tests.env("TRIREME_TEST_FULL", "1");
    }
    if args.peer {
        tests.env("TRIREME_ROLLOUT_PEER", "1");
    }
    process::run(&mut tests, "the tests of rollouts")
}

#[derive(clap::Args)]
pub(crate) struct RolloutArgs {
    /// 50 restarts of the pair and 20 ends with open streams, in the place of 8 and 4
    #[arg(long)]
    full: bool,
    /// Also count what tritonserver 2.51 loses over the same restarts
    #[arg(long)]
    peer: bool,
}

/// pytest over a folder, told where the program is.
fn pytest(workspace: &Workspace, python: &Path, folder: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--durations=5"]).arg(folder);
    command.current_dir(&workspace.root).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("TRIREME_TARGET", workspace.target.join("release"));
    command
}

/// The program, its backends, the weights of the examples and the interpreter that the tests run in.
fn ready_to_serve(workspace: &Workspace) -> Result<std::path::PathBuf> {
    build::server_and_backends(workspace, Profile::Release)?;
    models::fetch_examples(workspace)?;
    python_environment(workspace)
}
