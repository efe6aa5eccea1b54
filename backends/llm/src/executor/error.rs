//! What can go wrong behind the waist.

/// Why a step has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The step breaks a rule of the waist: a fault of the engine's, never of a request.
    #[error("the step breaks the executor's rules: {0}")]
    Rules(String),
    /// The executor cannot compute any more. All its sequences are lost.
    #[error("the executor failed: {0}")]
    Fatal(String),
    /// Its device is of no use to this process any more: no executor that is made anew could compute on it.
    #[error("the executor has lost its device: {0}")]
    DeviceLost(String),
}
