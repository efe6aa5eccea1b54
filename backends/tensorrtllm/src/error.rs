//! What can go wrong between here and the GPU.

/// Why the engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("there is no NVIDIA driver on this machine (libcuda.so.1 cannot be opened)")]
    NoDriver,
    #[error("there is an NVIDIA driver on this machine, but no GPU that it can use")]
    NoGpu,
    /// `found` as the driver has it: 12040 for 12.4.
    #[error(
        "the NVIDIA driver of this machine is for CUDA {}.{}, CUDA 13.0 is needed: install driver 580 or later",
        found / 1000,
        found % 1000 / 10
    )]
    OldDriver { found: i32 },
    #[error("this machine has {count} GPUs, GPU {ordinal} is not one of them")]
    NoDevice { ordinal: usize, count: usize },
    #[error("{name} has compute capability {major}.{minor}, the kernels need 8.0 or later")]
    TooOld { name: String, major: i32, minor: i32 },
    #[error("{library} cannot be opened; {mend}")]
    NoLibrary { library: &'static str, mend: &'static str },
    #[error("{call}: {error}")]
    Driver { call: &'static str, error: String },
    /// The GPU is of no use to this process any more; every further call would say the same.
    #[error("{call}: {error}")]
    Lost { call: &'static str, error: String },
    #[error("kernels/{module}.cu does not compile for {arch}: {log}")]
    Compile { module: &'static str, arch: String, log: String },
    #[error("the model is not supported: {0}")]
    Unsupported(String),
    #[error("not enough memory on the GPU: {0}")]
    Memory(String),
    #[error(transparent)]
    Checkpoint(#[from] trireme_llm::checkpoint::CheckpointError),
}

/// Codes of the driver after which a GPU is lost to the process: it must be ended and started anew. From the driver's own
/// descriptions of its codes.
const LOST: [u32; 15] = [
    214, // CUDA_ERROR_ECC_UNCORRECTABLE
    220, // CUDA_ERROR_NVLINK_UNCORRECTABLE
    226, // CUDA_ERROR_CONTAINED
    700, // CUDA_ERROR_ILLEGAL_ADDRESS
    702, // CUDA_ERROR_LAUNCH_TIMEOUT
    709, // CUDA_ERROR_CONTEXT_IS_DESTROYED
    710, // CUDA_ERROR_ASSERT
    714, // CUDA_ERROR_HARDWARE_STACK_ERROR
    715, // CUDA_ERROR_ILLEGAL_INSTRUCTION
    716, // CUDA_ERROR_MISALIGNED_ADDRESS
    717, // CUDA_ERROR_INVALID_ADDRESS_SPACE
    718, // CUDA_ERROR_INVALID_PC
    719, // CUDA_ERROR_LAUNCH_FAILED
    721, // CUDA_ERROR_TENSOR_MEMORY_LEAK
    911, // CUDA_ERROR_EXTERNAL_DEVICE
];

/// CUDA_ERROR_OUT_OF_MEMORY.
const OUT_OF_MEMORY: u32 = 2;

impl CudaError {
    /// What a call of the driver has said, by the number of its code.
    pub(crate) fn driver(call: &'static str, code: u32, error: String) -> Self {
        match code {
            OUT_OF_MEMORY => Self::Memory(format!("{call}: {error}")),
            code if LOST.contains(&code) => Self::Lost { call, error },
            _ => Self::Driver { call, error },
        }
    }
}

pub(crate) type Result<T, E = CudaError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use cudarc::driver::sys::CUresult;

    use super::*;

    #[test]
    fn a_gpu_is_lost_by_errors_that_stay() {
        let lost = |code: CUresult| {
            matches!(CudaError::driver("c", code as u32, String::new()), CudaError::Lost { .. })
        };
        for code in [
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_ASSERT,
        ] {
            assert!(lost(code), "{code:?}");
        }
        for code in [
            CUresult::CUDA_ERROR_INVALID_VALUE,
            CUresult::CUDA_ERROR_NOT_READY,
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
        ] {
            assert!(!lost(code), "{code:?}");
        }
        let memory = CudaError::driver("c", CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32, "e".into());
        assert_eq!(memory.to_string(), "not enough memory on the GPU: c: e");
    }
}
