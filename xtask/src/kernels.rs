//! `cargo xtask kernels`: the CUDA kernels to machine code, without a GPU.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::models;
use crate::process;
use crate::workspace::Workspace;

/// Compiles every module for every architecture. The folder with the code.
pub(crate) fn run(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--release", "--package", "trireme-backend-tensorrtllm", "--bin", "trireme-gpu"]);
    process::run(&mut cargo, "cargo build")?;
    compile(workspace)
}

/// The same with the program that is built already.
pub(crate) fn compile(workspace: &Workspace) -> Result<PathBuf> {
    let nvrtc = models::fetch_nvrtc(workspace)?;
    let out = workspace.target.join("kernels");
    let mut compiler = Command::new(workspace.target.join("release/trireme-gpu"));
    compiler.arg("kernels").arg(&out).env("LD_LIBRARY_PATH", with_path(&nvrtc));
    process::run(&mut compiler, "trireme-gpu kernels")?;
    Ok(out)
}

/// The folder before those that libraries are looked for in already.
fn with_path(folder: &Path) -> OsString {
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(env::split_paths(&before));
    env::join_paths(all.filter(|path| !path.as_os_str().is_empty())).unwrap_or_else(|_| folder.into())
}
