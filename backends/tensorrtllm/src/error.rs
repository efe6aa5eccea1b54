//! What can go wrong between here and the GPU.

/// Why the engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("there is no NVIDIA driver on this machine (libcuda.so.1 cannot be opened)")]
    NoDriver,
    #[error("there is an NVIDIA driver on this machine, but no GPU that it can use")]
    NoGpu,
    #[error("this machine has {count} GPUs, GPU {ordinal} is not one of them")]
    NoDevice { ordinal: usize, count: usize },
    #[error("{name} has compute capability {major}.{minor}, the kernels need 8.0 or later")]
    TooOld { name: String, major: i32, minor: i32 },
    #[error("{library} cannot be opened; {mend}")]
    NoLibrary { library: &'static str, mend: &'static str },
    #[error("{call}: {error}")]
    Driver { call: &'static str, error: String },
    #[error("kernels/{module}.cu does not compile for {arch}: {log}")]
    Compile { module: &'static str, arch: String, log: String },
    #[error("the model is not supported: {0}")]
    Unsupported(String),
    #[error("not enough memory on the GPU: {0}")]
    Memory(String),
    #[error(transparent)]
    Checkpoint(#[from] trireme_llm::checkpoint::CheckpointError),
}

pub(crate) type Result<T, E = CudaError> = std::result::Result<T, E>;
