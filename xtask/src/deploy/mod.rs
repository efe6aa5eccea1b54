//! Deployments tried for real: a local Slurm, manifests against the real helm and published types, an image that is built
//! and run without a container engine's daemon. What they need is installed by them: Debian packages by apt, the rest by
//! pinned version into `target/`.

mod cuda_image;
mod debian;
pub(crate) mod image;
mod sbom;
mod types;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::models;
use crate::process;
use crate::test::{python_environment, python_installed};
use crate::workspace::Workspace;

/// `cargo xtask test-slurm`: the scripts of `deploy/slurm` on a real Slurm that is started for it.
pub(crate) fn test_slurm(workspace: &Workspace) -> Result<()> {
    build::server_and_backends(workspace, Profile::Release)?;
    process::run(&mut slurm_tests(workspace)?, "the tests on Slurm")
}

/// `cargo xtask test-deploy`: the chart, the examples for KServe and the scripts' flags.
pub(crate) fn test_deploy(workspace: &Workspace) -> Result<()> {
    build::server_and_backends(workspace, Profile::Release)?;
    process::run(&mut manifest_tests(workspace)?, "the tests of the manifests")
}

/// `cargo xtask test-rollout`: restarts behind a real balancer lose nothing.
pub(crate) fn test_rollout(workspace: &Workspace, args: &RolloutArgs) -> Result<()> {
    build::server_and_backends(workspace, Profile::Release)?;
    let mut tests = rollout_tests(workspace)?;
    if args.full {
        tests.env("TRIREME_TEST_FULL", "1");
    }
    if args.peer {
        tests.env("TRIREME_ROLLOUT_PEER", "1");
    }
    process::run(&mut tests, "the tests of rollouts")
}

/// Makes ready what tests need beside the build, and gives the command that runs them.
type Prepare = fn(&Workspace) -> Result<Command>;

/// What the test tier `deploy` runs once everything is built.
pub(crate) const TESTS: [(&str, Prepare); 4] = [
    ("scripts for Slurm on a real one", slurm_tests),
    ("manifests against helm, schemas, published types and a real server", manifest_tests),
    ("restarts behind a real balancer", rollout_tests),
    ("the container image, run without rights", image::tests),
];

fn slurm_tests(workspace: &Workspace) -> Result<Command> {
    debian::need(&[("slurmctld", "slurm-wlm"), ("slurmd", "slurm-wlm"), ("munged", "munge")])?;
    Ok(pytest(workspace, &with_models(workspace)?, &workspace.root.join("tests/slurm")))
}

fn manifest_tests(workspace: &Workspace) -> Result<Command> {
    debian::need(&[("node", "nodejs"), ("npm", "npm"), ("promtool", "prometheus")])?;
    let folder = workspace.root.join("tests/deploy");
    let python =
        python_installed(workspace, &folder.join("requirements.txt"), &workspace.target.join("deploy-venv"))?;
    let types = types::install(workspace, &folder)?;
    let mut tests = pytest(workspace, &python, &folder);
    tests.env("TRIREME_DEPLOY_TYPES", types);
    Ok(tests)
}

fn rollout_tests(workspace: &Workspace) -> Result<Command> {
    debian::need(&[("haproxy", "haproxy")])?;
    let mut tests = pytest(workspace, &with_models(workspace)?, &workspace.root.join("tests/rollout"));
    // What was counted is part of the result.
    tests.arg("-s");
    Ok(tests)
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

/// The interpreter that tests run in, and the weights of the examples in their places.
fn with_models(workspace: &Workspace) -> Result<std::path::PathBuf> {
    models::fetch_examples(workspace)?;
    python_environment(workspace)
}
