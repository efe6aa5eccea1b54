use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::statistics::lock;

/// How many instance threads of each loaded model run, so that an unload and a drain can wait for them.
///
/// The key is the generation of a [`ModelVersion`](crate::ModelVersion): a reloaded version has another one.
#[derive(Default)]
pub(crate) struct Threads {
    running: Mutex<BTreeMap<u64, usize>>,
    ended: Condvar,
}

/// Held by an instance thread as long as it runs.
pub(crate) struct ThreadGuard {
    threads: Arc<Threads>,
    generation: u64,
}

impl Threads {
    /// A thread of `generation` begins.
    pub(crate) fn begin(self: &Arc<Self>, generation: u64) -> ThreadGuard {
        *lock(&self.running).entry(generation).or_default() += 1;
        ThreadGuard { threads: Arc::clone(self), generation }
    }

    /// Waits until no thread of these generations runs.
    pub(crate) fn wait_for(&self, generations: &[u64]) {
        let runs =
            |running: &mut BTreeMap<u64, usize>| generations.iter().any(|one| running.contains_key(one));
        let guard = lock(&self.running);
        drop(self.ended.wait_while(guard, runs).unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Waits until no thread runs, at most `timeout`; true if none runs.
    pub(crate) fn wait_all(&self, timeout: Duration) -> bool {
        let guard = lock(&self.running);
        let waited = self.ended.wait_timeout_while(guard, timeout, |running| !running.is_empty());
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0.is_empty()
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        let mut running = lock(&self.threads.running);
        if let Some(count) = running.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.generation);
            }
        }
        drop(running);
        self.threads.ended.notify_all();
    }
}
