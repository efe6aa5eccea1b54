use std::sync::atomic::AtomicU32;
use std::sync::{Condvar, Mutex, PoisonError};

use trireme_host::abi::Stage;
use trireme_host::{Response, ResponseSink, Status, Verdict};

use crate::statistics::lock;

/// Takes the answers of a warm-up sample and keeps none of them.
#[derive(Default)]
pub(super) struct WarmupSink {
    end: Mutex<Option<Result<(), Status>>>,
    ended: Condvar,
    cancelled: AtomicU32,
}

impl WarmupSink {
    /// Waits for the last answer, which may come from any thread.
    pub(super) fn wait(&self) -> Result<(), Status> {
        let end = lock(&self.end);
        let mut end = self.ended.wait_while(end, |end| end.is_none()).unwrap_or_else(PoisonError::into_inner);
        end.take().unwrap_or(Ok(()))
    }
}

impl ResponseSink for WarmupSink {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let error = response.error;
        if is_final || error.is_some() {
            let mut end = lock(&self.end);
            end.get_or_insert(error.map_or(Ok(()), Err));
            drop(end);
            self.ended.notify_all();
        }
        Verdict::Continue
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {}
}
