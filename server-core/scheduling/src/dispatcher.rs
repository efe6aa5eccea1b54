//! A scheduler and its instances: what the runtime holds for one model version.

use std::ops::Range;

use crate::instances::{InstanceId, InstanceSlots};
use crate::mutant::mutant;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Scheduler};
use crate::sequence::{DropReason, Row, SequenceStep};
use crate::time::Time;

/// What one [`Dispatcher::poll`] asks the caller to do. Reuse it: its buffers are kept.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Requests whose deadline passed in the queue; answer them so.
    pub expired: Vec<RequestId>,
    /// Requests that left with their sequence; answer each with its reason.
    pub dropped: Vec<(RequestId, DropReason)>,
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

    /// Neither a batch nor a request that left; there may be a wake-up time.
    pub fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.dropped.is_empty() && self.batches.is_empty()
    }

    fn clear(&mut self) {
        self.expired.clear();
        self.dropped.clear();
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
///
/// With sequences ([`is_bound`](Self::is_bound)) three things are different: a request may be for one
/// particular instance, so with pull every event wakes all that wait; requests can leave with their sequence,
/// and are listed in [`Actions::dropped`] or by [`take_dropped`](Self::take_dropped); and the end of a
/// request may let the next one of its sequence go, so it is reported by
/// [`on_request_done`](Self::on_request_done).
#[derive(Debug)]
pub struct Dispatcher {
    scheduler: Box<dyn Scheduler>,
    slots: InstanceSlots,
}

impl Dispatcher {
    pub fn new(scheduler: impl Scheduler + 'static, slots: InstanceSlots) -> Self {
        let mut scheduler: Box<dyn Scheduler> = Box::new(scheduler);
        (0..slots.len()).for_each(|index| scheduler.on_instance_added(InstanceId::nth(index)));
        Self { scheduler, slots }
    }

    /// As [`Scheduler::on_arrival`].
    ///
    /// # Errors
    /// The request has left with the refusal.
    pub fn on_arrival(&mut self, info: RequestInfo) -> Result<(), Refusal> {
        self.scheduler.on_arrival(info)
    }

    /// As [`Self::on_arrival`], for a request with a correlation id.
    ///
    /// # Errors
    /// The request has left with the refusal.
    pub fn on_sequence_arrival(&mut self, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        self.scheduler.on_sequence_arrival(info, step)
    }

    /// As [`Scheduler::on_cancel`]: true means that the request has left as cancelled. Others may have left
    /// with it.
    pub fn on_cancel(&mut self, id: RequestId) -> bool {
        self.scheduler.on_cancel(id)
    }

    /// `execute` returned on this instance, or a failed instance was replaced.
    pub fn on_instance_free(&mut self, instance: InstanceId) {
        if self.slots.is_down(instance) {
            self.scheduler.on_instance_up(instance);
        }
        self.slots.on_instance_free(instance);
    }

    /// This instance failed; it gets no work until it reports free again. Requests it held still have to be reported
    /// as finished, each when it is answered.
    pub fn on_instance_down(&mut self, instance: InstanceId) {
        self.slots.on_instance_down(instance);
        self.scheduler.on_instance_down(instance);
    }

    /// One request that this instance held has had its last answer. False if it held none.
    pub fn on_request_finished(&mut self, instance: InstanceId) -> bool {
        self.slots.on_request_finished(instance)
    }

    /// As [`Self::on_request_finished`], with the request: needed with sequences, where the next one may
    /// follow.
    pub fn on_request_done(&mut self, instance: InstanceId, id: RequestId) -> bool {
        self.scheduler.on_request_done(id);
        self.slots.on_request_finished(instance)
    }

    /// The rows of the batch that this instance took last, null requests among them; empty without sequences.
    pub fn rows(&self, instance: InstanceId) -> &[Row] {
        self.scheduler.rows(instance)
    }

    /// Whether work may be for one particular instance.
    pub fn is_bound(&self) -> bool {
        self.scheduler.is_bound()
    }

    /// Sequences that may go on.
    pub fn open_sequences(&self) -> usize {
        self.scheduler.open_sequences()
    }

    /// Pull: requests that have left with their sequence since the last call are appended.
    pub fn take_dropped(&mut self, dropped: &mut Vec<(RequestId, DropReason)>) {
        self.scheduler.take_dropped(dropped);
    }

    /// This instance is to be removed: it gets nothing new, but what sequences that it holds still send. When
    /// nothing of these is left it is told [`Ask::Closed`] and [`Self::is_retired`]. With pull, wake it.
    pub fn retire_instance(&mut self, instance: InstanceId) {
        self.slots.retire(instance);
        self.scheduler.on_instance_retired(instance);
    }

    /// Retiring, and nothing of it is left.
    pub fn is_retired(&self, instance: InstanceId) -> bool {
        self.may_go(instance) && self.slots.unfinished_of(instance) == 0
    }

    /// Whether sequences go on in this instance.
    pub fn holds_sequences(&self, instance: InstanceId) -> bool {
        self.scheduler.holds(instance)
    }

    fn may_go(&self, instance: InstanceId) -> bool {
        self.slots.is_retiring(instance) && !self.scheduler.holds(instance)
    }

    /// Takes no request from now on; those queued still run, without waiting for company. Sequences that have
    /// begun go on.
    pub fn close(&mut self) {
        self.scheduler.close();
    }

    pub fn is_closed(&self) -> bool {
        self.scheduler.is_closed()
    }

    /// Closed, every request that was taken has left the queue and been finished, and no sequence can go on.
    pub fn is_drained(&self) -> bool {
        let runs = self.scheduler.pending() + self.slots.unfinished() + self.scheduler.open_sequences();
        self.scheduler.is_closed() && runs == 0
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
        let instance = self.slots.add(max_in_flight);
        self.scheduler.on_instance_added(instance);
        instance
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
        // any -> Free; first, so that one that is back can get what waits
        self.on_instance_free(instance);
        // queued -> expired
        self.scheduler.expire(now, expired);
        if self.may_go(instance) {
            return Ask::Closed;
        }
        let ask = match self.slots.room_of(instance) {
            Some(room) => self.scheduler.take_batch(instance, now, room, batch),
            None if self.scheduler.pending() == 0 => {
                Ask::empty(self.is_closed() && self.scheduler.open_sequences() == 0)
            }
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

    /// When [`Self::expire`] next has something to do: the earliest deadline of a queued request. In the past: at
    /// once.
    pub fn next_deadline(&mut self) -> Option<Time> {
        self.scheduler.next_deadline()
    }

    /// Push: replaces the content of `actions` with what is to be done at `now`.
    pub fn poll(&mut self, now: Time, actions: &mut Actions) {
        actions.clear();
        // queued -> expired, even if every instance is busy
        self.scheduler.expire(now, &mut actions.expired);
        if self.scheduler.is_bound() {
            (0..self.slots.len()).for_each(|index| self.ask_for(InstanceId::nth(index), now, actions));
        } else {
            self.ask_for_any(now, actions);
        }
        self.scheduler.take_dropped(&mut actions.dropped);
        let deadline = self.scheduler.next_deadline().filter(|_| !mutant!("deadline-slept-over"));
        actions.wake = [actions.wake, deadline].into_iter().flatten().min();
    }

    // queued for this instance + Free -> batch + Busy
    fn ask_for(&mut self, instance: InstanceId, now: Time, actions: &mut Actions) {
        let Some(room) = self.slots.room_of(instance) else { return };
        let start = actions.ids.len();
        match self.scheduler.take_batch(instance, now, room, &mut actions.ids) {
            Ask::Batch(requests) => {
                self.slots.on_dispatched(instance, requests);
                actions.batches.push((instance, start..actions.ids.len()));
            }
            Ask::WakeAt(time) => actions.wake = actions.wake.into_iter().chain([time]).min(),
            Ask::Idle | Ask::Closed => {}
        }
    }

    // queued + Free -> batch + Busy, until either runs out
    fn ask_for_any(&mut self, now: Time, actions: &mut Actions) {
        while let Some((instance, room)) = self.slots.pick() {
            let start = actions.ids.len();
            match self.scheduler.take_batch(instance, now, room, &mut actions.ids) {
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
    }
}
