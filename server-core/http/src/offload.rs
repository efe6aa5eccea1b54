//! Work that is too long for a thread that serves connections.

use crate::answer::Failure;

/// Parsing or writing text of more bytes than this would hold up other connections for about a millisecond.
const INLINE_UP_TO: usize = 256 << 10;

/// Runs `work` over `bytes` bytes of text: here if that is quick, else on a thread for such work.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= INLINE_UP_TO {
        return work();
    }
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(Failure::internal("the message could not be handled: its codec failed")))
}
