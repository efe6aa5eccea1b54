//! A scheduler and its instances: what the runtime holds for one model version.

use std::ops::Range;

use crate::instances::{InstanceId, InstanceSlots};
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Scheduler};
use crate::time::Time;

/// What one [`Dispatcher::poll`] asks the caller to do. Reuse it: its buffers are kept.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Requests whose deadline passed in the queue; answer them so.
    pub expired: Vec<RequestId>,
    /// Poll again at this time if nothing happens before; always later than the time of this poll.
    pub wake: Option<Time>,
    ids: Vec<RequestId>,
    batches: Vec<(InstanceId, Range<usize>)>,
}

impl Actions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches to run, each on its instance, which is busy until [`Dispatcher::on_instance_free`].
    pub fn batches(&self) -> impl ExactSizeIterator<Item = (InstanceId, &[RequestId])> {
        self.batches
            .iter()
            .map(|(instance, range)| (*instance, self.ids.get(range.clone()).unwrap_or_default()))
    }

    /// Neither a batch nor an expired request; there may be a wake-up time.
    pub fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.batches.is_empty()
    }

    fn clear(&mut self) {
        self.expired.clear();
        self.ids.clear();
        self.batches.clear();
        self.wake = None;
    }
}

/// Brings waiting requests and free instances together.
///
/// Two ways to drive it, of which a caller picks one:
/// * **push**: report events, then [`poll`](Self::poll); the dispatcher picks the instance.
/// * **pull**: each instance's thread calls [`take_batch`](Self::take_batch) when it is free and waits as told; an arrival
///   wakes one of those that wait. While every instance is busy nobody asks, so somebody has to call
///   [`expire`](Self::expire) at [`next_deadline`](Self::next_deadline).
#[derive(Debug)]
pub struct Dispatcher {
    scheduler: Box<dyn Scheduler>,
    slots: InstanceSlots,
}

impl Dispatcher {
    pub fn new(scheduler: impl Scheduler + 'static, slots: InstanceSlots) -> Self {
        Self { scheduler: Box::new(scheduler), slots }
    }

    /// As [`Scheduler::on_arrival`].
    ///
    /// # Errors
    /// The request has left with the refusal.
    pub fn on_arrival(&mut self, info: RequestInfo) -> Result<(), Refusal> {
        self.scheduler.on_arrival(info)
    }

    /// As [`Scheduler::on_cancel`]: true means that the request has left as cancelled.
    pub fn on_cancel(&mut self, id: RequestId) -> bool {
        self.scheduler.on_cancel(id)
    }

    /// `execute` returned on this instance, or a failed instance was replaced.
    pub fn on_instance_free(&mut self, instance: InstanceId) {
        self.slots.on_instance_free(instance);
    }

    /// This instance failed; it gets no work until it reports free again. Requests it held still have to be reported
    /// as finished, each when it is answered.
    pub fn on_instance_down(&mut self, instance: InstanceId) {
        self.slots.on_instance_down(instance);
    }

    /// One request that this instance held has had its last answer. False if it held none.
    pub fn on_request_finished(&mut self, instance: InstanceId) -> bool {
        self.slots.on_request_finished(instance)
    }

    /// Takes no request from now on; those queued still run, without waiting for company.
    pub fn close(&mut self) {
        self.scheduler.close();
    }

    pub fn is_closed(&self) -> bool {
        self.scheduler.is_closed()
    }

    /// Closed, and every request that was taken has left the queue and been finished.
    pub fn is_drained(&self) -> bool {
        self.scheduler.is_closed() && self.scheduler.pending() == 0 && self.slots.unfinished() == 0
    }

    /// Requests not yet handed to an instance: the pending gauge.
    pub fn pending(&self) -> usize {
        self.scheduler.pending()
    }

    /// Nanoseconds since the oldest queued request arrived; 0 if none is queued.
    pub fn oldest_age_ns(&self, now: Time) -> u64 {
        self.scheduler.oldest_arrival().map_or(0, |arrival| now.ns_since(arrival))
    }

    pub fn instances(&self) -> &InstanceSlots {
        &self.slots
    }

    /// One more free instance.
    pub fn add_instance(&mut self, max_in_flight: Option<std::num::NonZeroU32>) -> InstanceId {
        self.slots.add(max_in_flight)
    }

    /// Pull: this instance is free and asks. Ids of the batch are appended to `batch`, requests whose deadline has passed
    /// to `expired`, whatever the answer is. With [`Ask::Batch`] the instance is busy until it asks again. The time of
    /// [`Ask::WakeAt`] counts deadlines in. An instance that holds as much as it declared is told to wait.
    pub fn take_batch(
        &mut self,
        instance: InstanceId,
        now: Time,
        batch: &mut Vec<RequestId>,
        expired: &mut Vec<RequestId>,
    ) -> Ask {
        // queued -> expired
        self.scheduler.expire(now, expired);
        // any -> Free
        self.slots.on_instance_free(instance);
        let ask = match self.slots.room_of(instance) {
            Some(room) => self.scheduler.take_batch(now, room, batch),
            None if self.scheduler.pending() == 0 => Ask::empty(self.scheduler.is_closed()),
            None => Ask::Idle,
        };
        let wake = match ask {
            // queued + Free -> batch + Busy
            Ask::Batch(requests) => {
                self.slots.on_dispatched(instance, requests);
                return ask;
            }
            Ask::Closed => return ask,
            Ask::WakeAt(time) => Some(time),
            Ask::Idle => None,
        };
        [wake, self.scheduler.next_deadline()].into_iter().flatten().min().map_or(Ask::Idle, Ask::WakeAt)
    }

    /// Pull: takes out every request whose deadline has passed and appends its id.
    pub fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        self.scheduler.expire(now, expired);
    }

    /// The earliest deadline of a queued request.
    pub fn next_deadline(&mut self) -> Option<Time> {
        self.scheduler.next_deadline()
    }

    /// Push: replaces the content of `actions` with what is to be done at `now`.
    pub fn poll(&mut self, now: Time, actions: &mut Actions) {
        actions.clear();
        // queued -> expired, even if every instance is busy
        self.scheduler.expire(now, &mut actions.expired);
        // queued + Free -> batch + Busy, until either runs out
        while let Some((instance, room)) = self.slots.pick() {
            let start = actions.ids.len();
            match self.scheduler.take_batch(now, room, &mut actions.ids) {
                Ask::Batch(requests) => {
                    self.slots.on_dispatched(instance, requests);
                    actions.batches.push((instance, start..actions.ids.len()));
                }
                Ask::WakeAt(time) => {
                    actions.wake = Some(time);
                    break;
                }
                Ask::Idle | Ask::Closed => break,
            }
        }
        let deadline = self.scheduler.next_deadline();
        actions.wake = [actions.wake, deadline].into_iter().flatten().min();
    }
}
