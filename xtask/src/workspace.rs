//! What `cargo metadata` says about this workspace, and where its folders are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::build::Profile;
use crate::process;

/// The workspace: its folders and its own packages, without third-party ones.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) crate_types: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        // At run time first: a checkout that moved keeps working with the binary built before.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir.parent().unwrap_or(&manifest_dir);
        let json = process::output(
            process::cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]),
            "cargo metadata",
        )?;
        serde_json::from_str(&json).context("cargo metadata printed something else than expected")
    }

    pub(crate) fn model_repository(&self) -> PathBuf {
        self.root.join("model_repository")
    }

    /// Examples that need ONNX Runtime.
    pub(crate) fn onnx_repository(&self) -> PathBuf {
        self.root.join("model_repository_onnx")
    }

    /// Where backends are installed, each in a folder of its own.
    pub(crate) fn backends(&self, profile: Profile) -> PathBuf {
        self.target.join(profile.name()).join("backends")
    }

    /// Texts that tests read, fetched by `cargo xtask test`.
    pub(crate) fn test_data(&self) -> PathBuf {
        self.target.join("test-data")
    }

    /// A path as a person in the root would type it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

impl Package {
    /// The folder of the package relative to `root`, with forward slashes.
    pub(crate) fn folder(&self, root: &Path) -> String {
        let dir = self.manifest_path.parent().unwrap_or(&self.manifest_path);
        dir.strip_prefix(root).unwrap_or(dir).to_string_lossy().replace('\\', "/")
    }

    /// The library's name if the package is a loadable backend: `identity` for `libtrireme_identity.so`.
    pub(crate) fn backend_name(&self, root: &Path) -> Option<&str> {
        if !self.folder(root).starts_with("backends/") {
            return None;
        }
        let library =
            self.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))?;
        library.name.strip_prefix("trireme_")
    }
}
