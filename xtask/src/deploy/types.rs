//! The types of operators' kinds: npm packages by a lock file, and KServe's Python package without what it needs to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Its models are read, not imported.
const KSERVE: &str = "kserve==0.15.2";
const FILES: [&str; 3] = ["package.json", "package-lock.json", "validate.mjs"];

/// Installs them into `target/deploy-types` and returns that.
pub(super) fn install(workspace: &Workspace, tests: &Path) -> Result<PathBuf> {
    let folder = workspace.target.join("deploy-types");
    let stamp = folder.join("installed");
    let mut wanted = KSERVE.to_owned();
    for file in FILES {
        let from = tests.join("types").join(file);
        wanted
            .push_str(&fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?);
    }
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    println!("  installing the types of operators' kinds into {}", workspace.shown(&folder));
    fs::create_dir_all(&folder)?;
    for file in FILES {
        fs::copy(tests.join("types").join(file), folder.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    process::run(&mut npm, "npm ci")?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]);
    pip.args(["--upgrade", "--target"]).arg(folder.join("kserve")).arg(KSERVE);
    process::run(&mut pip, "pip install of KServe's models")?;
    fs::write(&stamp, wanted)?;
    Ok(folder)
}
