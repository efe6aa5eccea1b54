//! Why a plan cannot be used.

/// What is wrong with a plan; the file is named by whoever opened it.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "is an engine of NVIDIA TensorRT, which only TensorRT can run; give the Hugging Face folder or the .gguf file that it \
         was built from, or a plan that `trireme-plan` wrote"
    )]
    TensorRt,
    #[error("is no plan of Trireme: it does not begin with 'TRIREMEP'; write one with `trireme-plan`")]
    Foreign,
    #[error(
        "is a plan of version {found}, this build reads version {}; write it again with this build's `trireme-plan`",
        super::VERSION
    )]
    Version { found: u32 },
    #[error("is cut off: {what} ends at byte {end}, the file has {have}; copy it again")]
    Truncated { what: String, end: u64, have: u64 },
    #[error("is damaged: the checksum of {what} does not match; copy it again")]
    Checksum { what: String },
    #[error("is malformed: {0}")]
    Malformed(String),
    #[error("names weights in '{path}', which {problem}")]
    Reference { path: String, problem: String },
    #[error("cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Source(String),
}
