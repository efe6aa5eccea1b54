//! A test hook: a batcher that does not begin before enough requests wait for it.

/// How many requests have to arrive before a batcher forms its first batch; 0: none. For tests that need to know what
/// waits together. A close ends the wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartAfter {
    /// Requests in the queue; with the direct strategy of sequences in the slots of all instances, with the oldest
    /// in the batcher of each instance, which has at most one of a sequence.
    pub queued: u32,
    /// With the direct strategy, and if `queued` is not 0: requests in the backlog besides.
    pub backlog: u32,
}

impl StartAfter {
    pub(crate) fn one_queued(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    pub(crate) fn one_in_backlog(&mut self) {
        self.backlog = self.backlog.saturating_sub(1);
    }

    /// Of a batcher without a backlog.
    pub(crate) fn without_backlog(self) -> Self {
        Self { backlog: 0, ..self }
    }

    /// Without a number of queued requests there is nothing to wait for.
    pub(crate) fn checked(self) -> Self {
        if self.queued == 0 { Self::default() } else { self }
    }

    pub(crate) fn waits(self) -> bool {
        self != Self::default()
    }
}
