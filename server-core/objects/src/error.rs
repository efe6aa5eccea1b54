/// Why a repository in an object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Its address cannot be read.
    #[error(
        "model repository '{address}': {why}; write s3://bucket/path or s3://http://host:port/bucket/path"
    )]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The environment does not say who asks, or says it in a way that is not read.
    #[error("model repository '{address}': {why}")]
    Credentials {
        /// As it was given.
        address: String,
        /// What is missing.
        why: String,
    },
    /// The store's client cannot be made.
    #[error("model repository '{address}' cannot be reached: {why}")]
    Client {
        /// As it was given.
        address: String,
        /// Why not.
        why: String,
    },
    /// There is no room for the copies.
    #[error(
        "no directory for the models of '{address}': {error}; TRITON_AWS_MOUNT_DIRECTORY names another one"
    )]
    Room {
        /// As it was given.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
