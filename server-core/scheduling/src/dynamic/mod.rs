//! The dynamic batcher: requests of equal shape that wait together run together.

mod config;
mod walk;

pub use config::{DynamicConfig, DynamicConfigError};

use crate::instances::InstanceId;
use crate::mutant::mutant;
use crate::queue::{Due, Pending};
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room, Scheduler};
use crate::start::StartAfter;
use crate::time::Time;
use walk::{Reach, Walk};

/// Forms a batch when an instance asks, by these rules:
///
/// 1. The batch is a piece of the queue from its head; the queue is in the order of levels, in a level those
///    on time before those whose timeout has passed, and then of arrival. A request of another shape, or one
///    that would exceed `max_batch_size`, closes it; nobody behind that request is looked at.
/// 2. The best cut is the largest preferred size met exactly; if none is met before the largest preferred size would be
///    exceeded, it is the point just before that.
/// 3. While the delay of the oldest request walked is not over, a best cut goes at once. A delay of 0 is
///    never over.
/// 4. Otherwise everything walked goes if the batch is closed, has reached the largest preferred size, the delay is
///    over or the delay is 0. So preferred sizes are no limit once the delay is over.
/// 5. Otherwise the requests wait until the delay of the oldest is over.
///
/// An instance that can hold only some of the requests walked takes those, whatever the preferred sizes are.
/// After [`Scheduler::close`] nobody can join any more, so rule 5 does not wait.
#[derive(Debug)]
pub struct Dynamic {
    config: DynamicConfig,
    queue: Pending,
    walk: Walk,
    /// Nobody is kept for company any more.
    hurries: bool,
    /// What has to arrive before the first batch.
    start: StartAfter,
}

enum Verdict {
    Send(usize),
    Wait(Time),
    Nothing,
}

impl Dynamic {
    pub fn new(config: DynamicConfig) -> Self {
        let queue = Pending::new(config.policies().clone());
        let start = config.start_after();
        Self { config, queue, walk: Walk::default(), hurries: false, start }
    }

    pub fn config(&self) -> &DynamicConfig {
        &self.config
    }

    /// From now on rule 5 does not wait, as after a close, but requests are still taken.
    pub(crate) fn wait_no_more(&mut self) {
        self.hurries = true;
    }

    fn judge(&mut self, now: Time, room: Room) -> Verdict {
        let Some(oldest) = self.queue.oldest_arrival() else {
            return Verdict::Nothing;
        };
        let delay = self.config.max_queue_delay_ns();
        let is_over = |oldest: Time| delay != 0 && now.ns_since(oldest) >= delay;
        // The oldest of all may be one that is served late: then only the walk tells whose delay counts.
        let reach = if is_over(oldest) || self.queue.reorders() { Reach::Max } else { Reach::Preferred };
        self.walk.go_on(&self.queue, &self.config, reach, room);
        let oldest = self.walk.oldest().unwrap_or(oldest);
        let delay_over = is_over(oldest);

        // waiting -> batch of what the instance can hold: it could take no more, so company would not help
        let candidates = if delay_over { self.walk.count } else { self.walk.in_time() };
        if candidates >= room.0 {
            return Verdict::Send(room.0);
        }
        // waiting -> batch at the best cut, while the delay runs
        if let (Some(cut), false) = (self.walk.best, delay_over) {
            return Verdict::Send(cut);
        }
        // waiting -> batch of all that was walked: it cannot grow, or is large enough, or may not wait (any more)
        let may_wait = delay != 0 && !delay_over && !self.hurries;
        if self.walk.closed || self.walk.is_full(&self.config) || !may_wait {
            return Verdict::Send(self.walk.count);
        }
        // waiting -> waiting
        Verdict::Wait(oldest.after_ns(delay).after_us(if mutant!("delay-missed") { 1_000 } else { 0 }))
    }
}

impl Scheduler for Dynamic {
    // (new) -> queued; closed, too large, level full: (new) -> refused
    fn on_arrival(&mut self, info: RequestInfo) -> Result<(), Refusal> {
        let max = self.config.max_batch_size();
        if info.size > max && !self.queue.is_closed() {
            return Err(Refusal::TooLarge { size: info.size, max });
        }
        let place = self.queue.push(info)?;
        self.walk.on_change(place);
        self.start.one_queued();
        Ok(())
    }

    // queued -> cancelled
    fn on_cancel(&mut self, id: RequestId) -> bool {
        if mutant!("cancel-without-effect") {
            return self.queue.get(id).is_some();
        }
        let Some(entry) = self.queue.remove(id) else {
            return false;
        };
        self.walk.on_change(entry.place);
        true
    }

    // open -> closed
    fn close(&mut self) {
        self.queue.close();
        self.hurries = true;
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    // queued -> expired
    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        while let Some(due) = self.queue.pop_due(now) {
            match due {
                Due::Expired(entry) => {
                    self.walk.on_change(entry.place);
                    expired.push(entry.info.id);
                }
                // on time -> late
                Due::Late(from, to) => {
                    self.walk.on_change(from);
                    self.walk.on_change(to);
                }
            }
        }
    }

    // queued -> batch
    fn take_batch(
        &mut self,
        _instance: InstanceId,
        now: Time,
        room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask {
        if self.start.waits() && !self.hurries {
            return Ask::Idle;
        }
        let count =
            match self.judge(now, Room(if mutant!("room-ignored") { usize::MAX } else { room.0.max(1) })) {
                Verdict::Nothing => return Ask::empty(self.queue.is_closed()),
                Verdict::Send(count) => count,
                Verdict::Wait(until) => return Ask::WakeAt(until),
            };
        if mutant!("answered-twice") && count > 1 {
            batch.extend(self.queue.next(None).map(|(_, entry)| entry.info.id));
            return Ask::Batch(1);
        }
        batch.extend((0..count).map_while(|_| self.queue.pop_front()).map(|entry| entry.info.id));
        self.walk = Walk::default();
        Ask::Batch(count)
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
