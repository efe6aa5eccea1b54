//! The executor: packed steps of one model on one GPU.
//!
//! ```text
//! submit ── changes, rows ─▶ [upload] ─▶ layers ─▶ logits ─▶ sampling ─▶ results in the host's memory ─▶ event
//! ```
//! A step of decode rows alone is one CUDA graph over arrays that live on the GPU and move on by themselves: while the
//! set of rows stays the same, the host sends nothing but the start. Any other step is launched kernel by kernel.

mod attention;
mod buffers;
mod decode_set;
mod forward;
mod graphs;
mod head;
mod linear;
mod load;
mod memory_plan;
mod mixed;
mod options;
mod profile;
mod results;
mod run;
mod streams;
mod testing;
mod tiles;
mod tune;
mod ways;

use trireme_llm::executor::{Executor, ExecutorError, ExecutorInfo, MemoryUse, StepDiff, StepId, StepOutput};

pub use memory_plan::{MemoryPlan, Outline};
pub use options::{EarlyLaunch, Options};
pub use profile::{PrefillRow, ProfileRow, SizeRow, padding};
pub use run::CudaExecutor;

use crate::error::CudaError;

impl From<CudaError> for ExecutorError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Lost { .. } => Self::DeviceLost(error.to_string()),
            _ => Self::Fatal(error.to_string()),
        }
    }
}

impl Executor for CudaExecutor {
    fn info(&self) -> &ExecutorInfo {
        self.executor_info()
    }

    fn memory(&self) -> MemoryUse {
        self.memory_use()
    }

    fn submit(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        self.submit_step(step)
    }

    fn poll(&mut self, id: StepId) -> Result<Option<StepOutput>, ExecutorError> {
        self.take(id, false)
    }

    fn wait(&mut self, id: StepId) -> Result<StepOutput, ExecutorError> {
        self.take(id, true)?
            .ok_or_else(|| ExecutorError::Fatal("a step that was waited for is not done".into()))
    }
}
