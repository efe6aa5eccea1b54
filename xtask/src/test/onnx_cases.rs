//! The ONNX project's operator cases, out of Debian's package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::models::hex;
use crate::process;
use crate::workspace::Workspace;

const PACKAGE: &str = "libonnx-testdata";
const VERSION: &str = "1.12.0-2";
const SHA256: &str = "7dc0912e02f79ece102331411a751b091bc0e191c9fb1287f8cdfbe5530f6027";

/// The folder of the cases, fetched with apt and unpacked without being installed.
pub(super) fn ready(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.test_data().join("onnx-cases");
    let cases = folder.join("usr/share/libonnx-testdata/data");
    if cases.is_dir() {
        return Ok(cases);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let scratch = tempfile::tempdir_in(&folder)?;
    let mut download = Command::new("apt-get");
    download.current_dir(scratch.path()).args(["download", "-qq"]).arg(format!("{PACKAGE}={VERSION}"));
    process::run(&mut download, "apt-get download")?;
    let archive = scratch.path().join(format!("{PACKAGE}_{VERSION}_all.deb"));
    let sum = hex(&Sha256::digest(fs::read(&archive).context("apt-get has downloaded nothing")?));
    if sum != SHA256 {
        bail!("checksum mismatch in {PACKAGE} {VERSION}: expected sha256 {SHA256}, got {sum}");
    }
    process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&folder), "dpkg -x")?;
    Ok(cases)
}
