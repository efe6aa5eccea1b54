//! Work that waits for a driver, where it holds up no connection.

use tokio::sync::Semaphore;

use crate::error::ServeError;

/// So much of it at a time; the rest waits for its turn and costs no thread. A driver that hangs must not take all the threads
/// that other work needs.
const MOST: usize = 32;

static TURNS: Semaphore = Semaphore::const_new(MOST);

/// Does `work` on a thread for such work. Who drops this gives up the result; what has begun ends.
///
/// # Errors
/// What the work says; INTERNAL with `unended` if it panicked.
pub(crate) async fn elsewhere<T: Send + 'static>(
    unended: &'static str,
    work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    let turn = TURNS.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(turn);
        result
    });
    done.await.unwrap_or_else(|_| Err(ServeError::internal(unended)))
}
