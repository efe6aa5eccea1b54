//! Where the tests find what was built.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// What `cargo xtask build` has filled: `TRIREME_TARGET`, or target/release of the workspace.
pub fn target() -> PathBuf {
    env::var_os("TRIREME_TARGET").map_or_else(|| workspace().join("target/release"), PathBuf::from)
}

/// The server.
///
/// # Errors
/// It was not built.
pub fn server() -> Result<PathBuf> {
    built(target().join("trireme"))
}

/// The library of one of the workspace's backends.
///
/// # Errors
/// It was not built.
pub fn backend(name: &str) -> Result<PathBuf> {
    built(target().join("backends").join(name).join(format!("libtrireme_{name}.so")))
}

fn built(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} is missing: run `cargo xtask build`, or set TRIREME_TARGET", path.display());
    Ok(path)
}
