use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many things a backend holds at the moment.
#[derive(Clone, Default)]
pub(crate) struct Live(Arc<(Mutex<usize>, Condvar)>);

/// One of these things.
pub(crate) struct Token(Live);

impl Live {
    pub(crate) fn token(&self) -> Token {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Token(self.clone())
    }

    /// Waits until there are none; how many are left after `limit`.
    pub(crate) fn settle(&self, limit: Duration) -> usize {
        let count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(count, limit, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.1.notify_all();
    }
}

/// Bytes that are counted as long as somebody holds them.
pub(crate) struct Counted {
    pub(crate) data: Vec<u8>,
    pub(crate) _token: Token,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
