//! The CUDA engine: decoders of the Llama family on NVIDIA GPUs, with kernels of its own.
//!
//! * `backend`: what `backend: "tensorrtllm"` names
//! * [`device`]: the GPU as this crate uses it
//! * [`kernels`]: CUDA C++ sources and how they become code
//! * [`gemm`]: products of many rows through cuBLASLt
//! * [`model`]: weights on the GPU
//! * [`state`]: what the GPU keeps of each sequence between steps
//! * [`executor`]: the waist's `Executor`
//! * [`tuning`]: what the clock has chosen, and where it is kept
//!
//! CUDA's libraries are opened when they are first called: nothing of them is needed to build or to start.

mod backend;
pub mod device;
mod error;
pub mod executor;
pub mod gemm;
pub mod kernels;
pub mod model;
pub mod state;
pub mod tuning;

pub use backend::{CudaBackend, OfflineModel, PARAMETERS};
pub use error::CudaError;
pub use executor::{CudaExecutor, EarlyLaunch, MemoryPlan, Options};
pub use model::{Source, fill_with};
