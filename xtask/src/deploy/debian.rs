//! Programs of Debian packages.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Makes sure that programs are there, by (program, package). Installs what is missing if it may.
///
/// # Errors
/// Something is missing and cannot be installed; the line to type.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<()> {
    let missing = |programs: &[(&str, &str)]| -> Vec<String> {
        let mut packages: Vec<String> =
            programs.iter().filter(|one| !is_there(one.0)).map(|one| one.1.to_owned()).collect();
        packages.dedup();
        packages
    };
    let packages = missing(programs);
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !(rustix::process::geteuid().is_root() && process::on_path("apt-get")) {
        bail!("install what is missing first, as root: apt-get install --no-install-recommends {names}");
    }
    println!("  installing {names}");
    process::run(Command::new("apt-get").args(["update", "-qq"]), "apt-get update")?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
    process::run(&mut install, "apt-get install")?;
    let still = missing(programs);
    if !still.is_empty() {
        bail!("the packages {} are installed, but their programs are not on PATH", still.join(", "));
    }
    Ok(())
}

/// Daemons are in folders that are not on everybody's path.
fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}
