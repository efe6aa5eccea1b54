//! The files of a checkpoint: in a folder, or in a `model.plan`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CheckpointError;
use super::json;
use crate::plan::Plan;

/// Where the small files of a checkpoint come from.
#[derive(Clone)]
pub(crate) enum Files {
    Folder(PathBuf),
    Plan(Arc<Plan>),
}

impl Files {
    /// What errors name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(dir) => dir.join(name),
            Self::Plan(plan) => plan.path().join(name),
        }
    }

    /// The file's bytes, `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        match self {
            Self::Folder(dir) => json::read_limited(&dir.join(name)),
            Self::Plan(plan) => Ok(plan.text(name).map(<[u8]>::to_vec)),
        }
    }

    /// The folder or the plan.
    pub(super) fn root(&self) -> &Path {
        match self {
            Self::Folder(dir) => dir,
            Self::Plan(plan) => plan.path(),
        }
    }
}
