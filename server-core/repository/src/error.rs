use std::path::PathBuf;

/// A repository that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// It is not there, or no directory.
    #[error(
        "model repository '{path}' cannot be read: {error}; give an existing directory to --model-repository"
    )]
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It was given as an empty text.
    #[error("the model repository is an empty path; give an existing directory to --model-repository")]
    Empty,
    /// It is in an object store.
    #[error(
        "model repository '{path}' is in an object store that cannot be read here: s3:// can, by a server that was built \
         with the feature s3; copy others to a directory"
    )]
    Remote {
        /// As it was given.
        path: PathBuf,
    },
    /// It is elsewhere, and cannot be copied.
    #[error("model repository '{path}' cannot be copied: {reason}")]
    Away {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It holds nothing.
    #[error(
        "model repository '{path}' holds no models: each model is a directory with config.pbtxt and versions 1, 2, …"
    )]
    NoModels {
        /// As it was given.
        path: PathBuf,
    },
    /// It is a model.
    #[error(
        "'{path}' looks like a model, not like a repository: give its parent directory '{parent}' to --model-repository"
    )]
    IsModel {
        /// As it was given.
        path: PathBuf,
        /// What was meant.
        parent: PathBuf,
    },
    /// It is a version of a model.
    #[error(
        "'{path}' looks like a version of a model, not like a repository: give '{repository}' to --model-repository"
    )]
    IsVersion {
        /// As it was given.
        path: PathBuf,
        /// What was meant.
        repository: PathBuf,
    },
    /// The name of the configuration is a path.
    #[error("--model-config-name '{name}' is not a name: it chooses configs/<name>.pbtxt and holds no '/'")]
    ConfigName {
        /// As it was given.
        name: String,
    },
}
