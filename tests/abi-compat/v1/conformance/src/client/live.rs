use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many things a backend holds at the moment.
#[derive(Clone, Default)]
pub struct Live(Arc<(Mutex<usize>, Condvar)>);

/// One of these things.
pub struct Token(Live);

impl Live {
    /// One more.
    pub fn token(&self) -> Token {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Token(self.clone())
    }

    /// Waits until there are none; how many are left after `limit`.
    pub fn settle(&self, limit: Duration) -> usize {
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
pub struct Counted {
    data: Vec<u8>,
    start: usize,
    _token: Token,
}

impl Counted {
    /// A copy, aligned as an allocation is.
    pub fn new(bytes: &[u8], live: &Live) -> Self {
        Self { data: bytes.to_vec(), start: 0, _token: live.token() }
    }

    /// A copy at an address that is aligned to nothing.
    pub fn unaligned(bytes: &[u8], live: &Live) -> Self {
        Self { data: [&[0], bytes].concat(), start: 1, _token: live.token() }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data[self.start..]
    }
}
