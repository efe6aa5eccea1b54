//! The CPU engine: decoders of the Llama family and encoders of the BERT family, on all cores.
//!
//! It is the reference that others are compared with, so its first promise is about numbers: **a row's result does not
//! depend on its company.** An output is one chain of operations whose order is given by the weight's layout (along k)
//! or by the position (in attention); rows, batches, threads and tiles only decide who computes it. `avx2` and `avx512`
//! agree to the last bit; `reference` computes in plain `f32` and is for reading and for comparison.
//!
//! [`CpuBackend`] makes a backend of it: `backend: "cpu"`.
//!
//! Quantised weights are never dequantised as a whole: they are re-ordered in their own form (`linear/pack.rs`), and
//! activations meet them as blocks of two times 8 bits. `F32`, `F16` and `BF16` weights are multiplied in `f32`.

mod attend;
mod backend;
mod bert;
mod decoder;
mod error;
mod executor;
mod kernels;
mod kv;
mod linear;
mod memory;
mod ops;
mod options;
mod shared;
mod threads;

pub use backend::{CpuBackend, PARAMETERS};
pub use bert::BertModel;
pub use decoder::{LlamaModel, LogitsWanted, MAX_STEP_ROWS};
pub use error::EngineError;
pub use executor::{CpuExecutor, ExecutorOptions, KvCapacity};
pub use kernels::{KERNELS_ENV, KernelChoice};
pub use kv::{KvCache, KvDtype};
pub use options::Options;
pub use threads::Pool;
