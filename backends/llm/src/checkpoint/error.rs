//! Why a checkpoint cannot be opened or used.

use std::path::{Path, PathBuf};

/// An error about one checkpoint: the file or folder it is about, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct CheckpointError {
    /// The file (or folder) that has to be mended.
    pub path: PathBuf,
    #[source]
    pub kind: CheckpointErrorKind,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointErrorKind {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is not a checkpoint: {0}")]
    NotACheckpoint(String),
    #[error("is malformed: {0}")]
    Malformed(String),
    #[error("is cut off: tensor '{tensor}' misses its last {missing_bytes} bytes; fetch the file again")]
    Truncated { tensor: String, missing_bytes: u64 },
    #[error("architecture '{found}' is not known; known are: {known}")]
    UnknownArchitecture { found: String, known: String },
    #[error("{0} is not supported yet")]
    Unsupported(String),
    #[error("has no tensor '{name}'{hint}")]
    MissingWeight { name: String, hint: String },
    #[error("tensor '{name}' has shape {found:?}, the configuration asks for {expected:?}")]
    WrongShape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{0}")]
    Tokenizer(String),
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
}

impl CheckpointErrorKind {
    /// Names the file or folder that this error is about.
    pub fn at(self, path: &Path) -> CheckpointError {
        CheckpointError { path: path.to_path_buf(), kind: self }
    }

    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }
}
