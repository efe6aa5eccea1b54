//! How a model is loaded.

use crate::kernels::KernelChoice;
use crate::kv::KvDtype;

/// Choices of the person who loads a model. The default is the fast one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads that compute, the caller included; 0, the default, means as many as the cores that this process may use.
    /// They sleep when there is nothing to do and offer their cores to others while they wait for each other.
    pub threads: usize,
    pub kernels: KernelChoice,
    /// Element type of the KV cache.
    pub kv_dtype: KvDtype,
}
