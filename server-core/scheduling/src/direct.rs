//! The scheduler of a model without `dynamic_batching`.

use crate::instances::InstanceId;
use crate::queue::{Due, Pending};
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room, Scheduler};
use crate::time::Time;

/// Every request is an execution of its own, first come, first served. A request may be a batch its client made.
/// Priority and timeout have no effect here; a deadline has.
#[derive(Debug, Default)]
pub struct Direct {
    queue: Pending,
}

impl Direct {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Scheduler for Direct {
    // (new) -> queued; closed: (new) -> refused
    fn on_arrival(&mut self, info: RequestInfo) -> Result<(), Refusal> {
        self.queue.push(info).map(drop)
    }

    // queued -> cancelled
    fn on_cancel(&mut self, id: RequestId) -> bool {
        self.queue.remove(id).is_some()
    }

    // open -> closed
    fn close(&mut self) {
        self.queue.close();
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    // queued -> expired
    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        while let Some(Due::Expired(entry)) = self.queue.pop_due(now) {
            expired.push(entry.info.id);
        }
    }

    // queued -> batch of one
    fn take_batch(
        &mut self,
        _instance: InstanceId,
        _now: Time,
        _room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask {
        match self.queue.pop_front() {
            Some(entry) => {
                batch.push(entry.info.id);
                Ask::Batch(1)
            }
            None => Ask::empty(self.queue.is_closed()),
        }
    }

    fn next_deadline(&mut self) -> Option<Time> {
        self.queue.next_deadline()
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn oldest_arrival(&self) -> Option<Time> {
        self.queue.oldest_arrival()
    }
}
