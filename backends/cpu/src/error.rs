//! Why a model cannot be loaded or run by this engine.

use trireme_llm::checkpoint::{CheckpointError, CheckpointErrorKind};

/// An error of the CPU engine: what, where, and the mend.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Weight(#[from] CheckpointErrorKind),
    #[error("the checkpoint is a {found} model, not a {wanted} model")]
    WrongArchitecture { found: &'static str, wanted: &'static str },
    #[error(
        "{what} is {value}, the vector kernels need a multiple of {multiple}; set TRIREME_CPU_KERNELS=reference"
    )]
    Shape { what: &'static str, value: usize, multiple: usize },
    #[error("tensor '{name}' has shape {found:?}, the configuration asks for {expected:?}")]
    WeightShape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("configuration: {0}")]
    Config(String),
    #[error("kernels '{0}' are not known; known are: auto, reference, avx2, avx512")]
    UnknownKernels(String),
    #[error("kernels '{0}' need instructions that this CPU does not have; leave the choice to 'auto'")]
    KernelsNotHere(&'static str),
    #[error("the cache holds {capacity} positions, {needed} are needed")]
    CacheFull { capacity: usize, needed: usize },
    #[error(
        "memory for {blocks} blocks of keys and values of {} each cannot be had; give the cache fewer tokens",
        block_bytes.map_or("countless bytes".to_owned(), |n| format!("{n} bytes"))
    )]
    KvMemory { blocks: usize, block_bytes: Option<usize> },
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange { id: u32, vocab: usize },
    #[error("text of {tokens} tokens is longer than the {limit} that the model can read")]
    TextTooLong { tokens: usize, limit: usize },
    #[error("no tokens were given")]
    Empty,
    #[error("threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}
