//! The Python environment of the end-to-end tests and benchmarks: `target/venv`, pinned by `tests/python/requirements.txt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// The interpreter of the environment, which is made or brought up to date first.
pub(crate) fn environment(workspace: &Workspace) -> Result<PathBuf> {
    installed(
        workspace,
        &workspace.root.join("tests/python/requirements.txt"),
        &workspace.target.join("venv"),
    )
}

/// The interpreter of the environment in `folder`, which holds what `pins` says.
pub(crate) fn installed(workspace: &Workspace, pins: &Path, folder: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    let (python, stamp) = (folder.join("bin/python3"), folder.join("requirements.installed"));
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("  installing the Python clients into {}", workspace.shown(folder));
    // Without its own pip, because Debian ships that in a package apart; the machine's pip installs into it.
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear", "--without-pip"]).arg(folder);
    process::run(&mut make, "python3 -m venv")?;
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "--python"]).arg(&python);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]);
    install.arg(pins);
    process::run(&mut install, "pip install of the Python clients")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
