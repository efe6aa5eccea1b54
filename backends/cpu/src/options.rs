//! How a model is loaded.

use crate::kernels::KernelChoice;
use crate::kv::KvDtype;

/// Choices of the person who loads a model. The default is the fast one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads that compute, the caller included; 0 means all that this process may use.
    pub threads: usize,
    pub kernels: KernelChoice,
    /// Element type of the KV cache.
    pub kv_dtype: KvDtype,
}
