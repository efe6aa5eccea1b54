//! The place where requests wait and where a free instance asks for work: the pure scheduler under one lock, with
//! threads and a clock around it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};
use trireme_host::{Item, Request, Responder, ResponseSink};
use trireme_protocol::StatusCode;
use trireme_scheduling::{
    Ask, CorrelationId, Dispatcher, DropReason, InstanceId, MemberId, Refusal, RequestId, RequestInfo, Row,
    SequenceStep, ShapeKey, Time,
};
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use crate::alarm;
use crate::error::ServeError;
use crate::execution::Execution;
use crate::journey::Journey;
use crate::lookout::{self, Wait};
use crate::sequence::StateSlot;
use crate::share::{Limiter, Share};
use crate::statistics::lock;
use crate::stopping::STOPPING;

/// The queue of one model version.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Instances wait here for work.
    work: Condvar,
    /// Counts what instances wait for; those that look for it instead of sleeping see it change.
    news: AtomicU64,
    /// How long instances are without work.
    idle: Wait,
    /// Told once, when the queue closes. Not `work`: who waits for this must not take an instance's wake-up.
    closed: Condvar,
    /// Told when an instance has ended.
    ended: Condvar,
    /// Only some of the instances may be able to take a request.
    bounded: bool,
    /// Requests are for one particular instance.
    bound: bool,
}

struct State {
    dispatcher: Dispatcher,
    waiting: SlotMap<DefaultKey, Waiting>,
    idle_instances: usize,
    /// Instances that look for work; they need not be woken.
    looking: usize,
    /// When an instance ran out of work last.
    idle_since: Option<u64>,
    /// By instance: whether it is neither given up nor taken out.
    alive: Vec<bool>,
    /// Those that have ended.
    gone: BTreeSet<InstanceId>,
    /// Those that run, each with its share in the server's resources, if it needs any.
    shares: BTreeMap<InstanceId, Option<MemberId>>,
    /// Why nothing is taken any more, if the last instance is lost.
    lost: Option<ServeError>,
    /// The server ends.
    stopping: bool,
    /// When an alarm is set for this queue.
    alarm: Option<Time>,
    /// Reused from batch to batch.
    ids: Vec<RequestId>,
    expired: Vec<RequestId>,
}

struct Waiting {
    request: Box<Request>,
    journey: Arc<Journey>,
}

/// What an instance is to do next.
pub(crate) enum Work {
    /// `batch` holds the requests.
    Run,
    /// The queue is closed and empty, or the instance was taken out.
    End,
}

impl State {
    /// Requests that have left with their sequence, and why.
    fn take_dropped(&mut self) -> Vec<(Waiting, DropReason)> {
        let mut ids = Vec::new();
        self.dispatcher.take_dropped(&mut ids);
        let taken = ids.into_iter().filter_map(|(id, why)| Some((take(&mut self.waiting, id)?, why)));
        taken.collect()
    }

    /// When an alarm is to be set, unless one comes early enough.
    fn next_alarm(&mut self) -> Option<Time> {
        let next = self.dispatcher.next_deadline()?;
        if self.alarm.is_some_and(|set| set <= next) {
            return None;
        }
        self.alarm = Some(next);
        Some(next)
    }
}

impl Queue {
    /// `bounded`: an instance may hold only so many requests in flight, so their ends must be told.
    pub(crate) fn new(dispatcher: Dispatcher, bounded: bool) -> Self {
        let state = State {
            alive: vec![true; dispatcher.instances().len()],
            gone: BTreeSet::new(),
            shares: BTreeMap::new(),
            lost: None,
            stopping: false,
            alarm: None,
            dispatcher,
            waiting: SlotMap::new(),
            idle_instances: 0,
            looking: 0,
            idle_since: None,
            ids: Vec::new(),
            expired: Vec::new(),
        };
        let bound = state.dispatcher.is_bound();
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            news: AtomicU64::new(0),
            idle: Wait::default(),
            closed: Condvar::new(),
            ended: Condvar::new(),
            bounded: bounded || bound,
            bound,
        }
    }

    /// Adds a request.
    pub(crate) fn push(
        &self,
        journey: &Arc<Journey>,
        request: Box<Request>,
        shape_key: ShapeKey,
        timeout_us: u64,
        step: Option<SequenceStep>,
    ) -> Result<(), ServeError> {
        let (size, priority) = (request.batch_size, request.priority);
        let mut state = lock(&self.state);
        let key = state.waiting.insert(Waiting { request, journey: Arc::clone(journey) });
        let id = RequestId(key.data().as_ffi());
        let timeout_us = (timeout_us > 0).then_some(timeout_us);
        let arrival = Time(journey.accepted_ns());
        let info = RequestInfo { id, size, shape_key, priority, timeout_us, deadline: None, arrival };
        let correlation = step.as_ref().map(|step| step.correlation.clone());
        let taken = match step {
            Some(step) => state.dispatcher.on_sequence_arrival(info, step),
            None => state.dispatcher.on_arrival(info),
        };
        if let Err(refusal) = taken {
            let request = state.waiting.remove(key);
            let (lost, stopping) = (state.lost.clone(), state.stopping);
            let dropped = state.take_dropped();
            drop(state);
            drop(request);
            refuse_dropped(dropped);
            journey.model.metrics.count_failure(FailureReason::Rejected);
            if refusal == Refusal::Closed && stopping {
                return Err(ServeError::unavailable(STOPPING));
            }
            return Err(lost.unwrap_or_else(|| refused(journey, &refusal, correlation.as_ref())));
        }
        journey.ticket.store(id.0, SeqCst);
        journey.number.store(id.0, SeqCst);
        journey.model.metrics.pending_request_count.fetch_add(1, Relaxed);
        if let Some(ordering) = journey.model.ordering() {
            ordering.enter(journey);
        }
        // One that looks takes the request without being woken, unless it is full or the request is for another one.
        let wake = state.idle_instances > 0 && (self.bounded || state.waiting.len() > state.looking);
        let alarm = state.next_alarm();
        let dropped = state.take_dropped();
        drop(state);
        if wake {
            self.wake();
        } else {
            self.tell_lookouts();
        }
        refuse_dropped(dropped);
        if let Some(at) = alarm {
            alarm::set(at.0, Arc::downgrade(journey.model.queue()));
        }
        Ok(())
    }

    /// A request may have waited too long while every instance was busy.
    pub(crate) fn on_alarm(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.alarm = None;
        let State { dispatcher, waiting, expired, .. } = &mut *state;
        dispatcher.expire(Time(now_ns()), expired);
        let late: Vec<_> = expired.drain(..).filter_map(|id| take(waiting, id)).collect();
        let alarm = state.next_alarm();
        let closed = state.dispatcher.is_closed();
        let dropped = state.take_dropped();
        drop(state);
        refuse_late(late);
        refuse_dropped(dropped);
        // Time may have given a slot to a sequence that waited for one.
        if closed || self.bound {
            self.wake_all();
        }
        if let Some(at) = alarm {
            alarm::set(at.0, Arc::downgrade(self));
        }
    }

    /// For one more request. Bounded instances that are full sleep beside those with room, so only waking all of them is
    /// sure to reach one that can take it.
    fn wake(&self) {
        if self.bounded {
            self.wake_all();
        } else {
            self.tell_lookouts();
            self.work.notify_one();
        }
    }

    fn wake_all(&self) {
        self.tell_lookouts();
        self.work.notify_all();
    }

    /// Without the lock, which is what they want next.
    fn tell_lookouts(&self) {
        self.news.fetch_add(1, Release);
    }

    /// Looks for news for a moment, without the lock, if that is likely to pay.
    fn look_out<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(mut lookout) = lookout::INSTANCES.begin(&self.idle) else { return state };
        let known = self.news.load(Acquire);
        state.looking += 1;
        drop(state);
        while lookout.look(|| self.news.load(Acquire) != known) {}
        drop(lookout);
        let mut state = lock(&self.state);
        state.looking -= 1;
        state
    }

    /// Takes a request out again if no instance has it yet; it is answered CANCELLED.
    pub(crate) fn cancel(&self, journey: &Arc<Journey>) {
        let ticket = journey.ticket.load(SeqCst);
        if ticket == 0 {
            return;
        }
        let mut state = lock(&self.state);
        if state.dispatcher.on_cancel(RequestId(ticket)) {
            let waiting = state.waiting.remove(KeyData::from_ffi(ticket).into());
            let closed = state.dispatcher.is_closed();
            let dropped = state.take_dropped();
            drop(state);
            refuse_dropped(dropped);
            if closed || self.bound {
                // It may have been the last one: full instances that waited to take it can end.
                self.wake_all();
            }
            if let Some(waiting) = waiting {
                leave(&waiting.journey);
                waiting.journey.fail(
                    ServeError::new(StatusCode::Cancelled, "the request was cancelled while it waited"),
                    FailureReason::Canceled,
                );
            }
        }
    }

    /// Waits until instance `instance` has something to do, and the right to its resources if it has a `share` in such.
    /// The requests of a batch are put into `batch`. With sequences, `rows` tells the rows of the batch.
    pub(crate) fn next(
        &self,
        instance: InstanceId,
        share: Option<&Share>,
        batch: &mut Vec<Item>,
        rows: &mut Vec<Row>,
    ) -> Work {
        let mut state = lock(&self.state);
        if let Some(share) = share {
            share.give_back(true, state.dispatcher.pending() > 0);
        }
        let mut may_look = true;
        loop {
            // Only with the right to run a batch is formed, so that it is as large as it can be by then.
            if let Some(share) = share.filter(|_| state.dispatcher.pending() > 0)
                && !share.is_held()
            {
                drop(state);
                share.acquire();
                state = lock(&self.state);
            }
            let State { dispatcher, waiting, ids, expired, idle_since, .. } = &mut *state;
            let ask = dispatcher.take_batch(instance, Time(now_ns()), ids, expired);
            let late: Vec<_> = expired.drain(..).filter_map(|id| take(waiting, id)).collect();
            let work = match ask {
                // queued => running
                Ask::Batch(_) => {
                    rows.clear();
                    rows.extend_from_slice(dispatcher.rows(instance));
                    let nulls = rows.iter().filter(|row| row.request.is_none()).count();
                    let execution =
                        Arc::new(Execution::start(ids.len(), nulls, instance, share.map(Share::member)));
                    let mut slots = rows.iter().filter(|row| row.request.is_some()).map(|row| row.slot);
                    for Waiting { request, journey } in ids.drain(..).filter_map(|id| take(waiting, id)) {
                        if let Some(slot) = slots.next() {
                            journey.take_slot(StateSlot { instance, slot });
                        }
                        leave(&journey);
                        if let Some(since) = idle_since.take() {
                            self.idle.took(journey.accepted_ns().saturating_sub(since));
                        }
                        journey.begin(Arc::clone(&execution));
                        let sink: Arc<dyn ResponseSink> = journey;
                        batch.push(Item { request, responder: Responder::new(sink) });
                    }
                    Some(Work::Run)
                }
                // closed and empty, or retired => the instance may go
                Ask::Closed => Some(Work::End),
                Ask::Idle | Ask::WakeAt(_) => None,
            };
            if let Some(share) = share.filter(|_| !matches!(work, Some(Work::Run))) {
                share.give_back(false, false);
            }
            let dropped = state.take_dropped();
            if work.is_some() || !late.is_empty() || !dropped.is_empty() {
                // An arrival wakes one instance; what that one leaves behind is for the next.
                let more = state.idle_instances > 0 && !state.waiting.is_empty();
                drop(state);
                if matches!(work, Some(Work::End)) {
                    // The others may wait for room for requests that are gone.
                    self.wake_all();
                } else if more {
                    self.wake();
                }
                refuse_late(late);
                refuse_dropped(dropped);
                match work {
                    Some(work) => return work,
                    None => state = lock(&self.state),
                }
                continue;
            }
            if ask == Ask::Idle && std::mem::take(&mut may_look) {
                state.idle_since = Some(now_ns());
                state = self.look_out(state);
                continue;
            }
            state.idle_instances += 1;
            state = match ask {
                Ask::WakeAt(at) => {
                    let wait = Duration::from_nanos(at.0.saturating_sub(now_ns()).max(1));
                    self.work.wait_timeout(state, wait).unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
                _ => self.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
            state.idle_instances -= 1;
        }
    }

    /// A request that instance `instance` held has its last answer.
    pub(crate) fn finished(&self, instance: InstanceId, journey: &Journey) {
        if !self.bounded {
            return;
        }
        let mut state = lock(&self.state);
        state.dispatcher.on_request_done(instance, RequestId(journey.number.load(SeqCst)));
        let wake = state.idle_instances > 0 && (self.bound || !state.waiting.is_empty());
        drop(state);
        if wake {
            // The instance with the room may be any of those that wait.
            self.wake_all();
        } else {
            self.tell_lookouts();
        }
    }

    /// Waits until the queue is closed, at most `pause`; true if it is.
    pub(crate) fn wait_closed(&self, pause: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.closed.wait_timeout_while(state, pause, |state| !state.dispatcher.is_closed());
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0.dispatcher.is_closed()
    }

    /// The server ends, and this queue will be closed.
    pub(crate) fn begin_stop(&self) {
        lock(&self.state).stopping = true;
    }

    /// Takes nothing new; what waits is still run.
    pub(crate) fn close(&self) {
        lock(&self.state).dispatcher.close();
        self.wake_all();
        self.closed.notify_all();
    }

    /// An instance failed: what it knew of its sequences is gone, until it asks for work again.
    pub(crate) fn instance_failed(&self, instance: InstanceId) {
        let mut state = lock(&self.state);
        state.dispatcher.on_instance_down(instance);
        let dropped = state.take_dropped();
        drop(state);
        refuse_dropped(dropped);
        if self.bound {
            self.wake_all();
        }
    }

    /// Instances that take requests.
    pub(crate) fn alive(&self) -> u32 {
        let alive = lock(&self.state).alive.iter().filter(|alive| **alive).count();
        u32::try_from(alive).unwrap_or(u32::MAX)
    }

    /// How many instances there are or were: the number of the next one.
    pub(crate) fn instances(&self) -> u32 {
        u32::try_from(lock(&self.state).alive.len()).unwrap_or(u32::MAX)
    }

    /// Takes in `count` instances more, which bear the next numbers, and lets `retired` end after what they do now and
    /// the sequences that they hold. What else waits is for those that are left.
    pub(crate) fn change_instances(
        &self,
        count: usize,
        max_in_flight: Option<NonZeroU32>,
        retired: &[InstanceId],
    ) {
        let mut state = lock(&self.state);
        for _ in 0..count {
            state.dispatcher.add_instance(max_in_flight);
            state.alive.push(true);
        }
        for instance in retired {
            state.dispatcher.retire_instance(*instance);
            if let Some(alive) = state.alive.get_mut(instance.0 as usize) {
                *alive = false;
            }
        }
        drop(state);
        self.wake_all();
    }

    /// An instance begins to ask for work.
    pub(crate) fn instance_begins(&self, instance: InstanceId, share: Option<&Share>) {
        lock(&self.state).shares.insert(instance, share.map(Share::member));
    }

    /// Whether an instance could run while those hold what they need of the server's resources.
    pub(crate) fn could_run(&self, limiter: &Limiter, beside: &[MemberId]) -> bool {
        let shares: Option<Vec<MemberId>> = lock(&self.state).shares.values().copied().collect();
        // Without an instance nobody knows, and one that needs nothing can always run.
        shares.is_none_or(|shares| shares.is_empty() || limiter.could_run(&shares, beside))
    }

    /// An instance has ended.
    pub(crate) fn instance_ended(&self, instance: InstanceId) {
        let mut state = lock(&self.state);
        state.shares.remove(&instance);
        state.gone.insert(instance);
        drop(state);
        self.ended.notify_all();
    }

    /// Waits until each of these instances, which were taken out, has ended or is left to its sequences; at most `pause`.
    pub(crate) fn wait_ended(&self, retired: &[InstanceId], pause: Duration) {
        let runs = |state: &mut State| {
            retired.iter().any(|one| !state.gone.contains(one) && !state.dispatcher.holds_sequences(*one))
        };
        let state = lock(&self.state);
        let waited = self.ended.wait_timeout_while(state, pause, runs);
        drop(waited.unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// An instance is gone for good. Without the last one nothing new is taken, and everything that waits fails; `true`
    /// says that it was the last.
    pub(crate) fn instance_lost(&self, instance: InstanceId, error: &ServeError) -> bool {
        let mut state = lock(&self.state);
        if let Some(alive) = state.alive.get_mut(instance.0 as usize) {
            *alive = false;
        }
        if state.alive.contains(&true) {
            // It may have been woken for a request that another one has to take now.
            drop(state);
            self.wake_all();
            return false;
        }
        state.dispatcher.close();
        state.lost = Some(error.clone());
        let waiting: Vec<_> = state.waiting.drain().map(|(_, waiting)| waiting).collect();
        for Waiting { journey, .. } in &waiting {
            state.dispatcher.on_cancel(RequestId(journey.ticket.load(SeqCst)));
        }
        drop(state);
        for Waiting { journey, .. } in waiting {
            leave(&journey);
            journey.fail(error.clone(), FailureReason::Other);
        }
        true
    }
}

fn take(waiting: &mut SlotMap<DefaultKey, Waiting>, id: RequestId) -> Option<Waiting> {
    waiting.remove(KeyData::from_ffi(id.0).into())
}

fn refused(journey: &Journey, refusal: &Refusal, correlation: Option<&CorrelationId>) -> ServeError {
    let (name, version) = (journey.model.name(), journey.model.version());
    match refusal {
        Refusal::Closed => ServeError::unavailable(format!(
            "model '{name}' version {version} is being unloaded and takes no new requests"
        )),
        Refusal::TooLarge { max, .. } => {
            ServeError::invalid(format!("inference request batch-size must be <= {max} for '{name}'"))
        }
        Refusal::QueueFull { .. } => ServeError::unavailable(refusal.to_string()),
        Refusal::DuplicateId => ServeError::internal("two requests with one ticket"),
        other => ServeError::invalid(other.words(name, correlation)),
    }
}

/// The request is no longer pending.
fn leave(journey: &Journey) {
    journey.ticket.store(0, SeqCst);
    journey.model.metrics.pending_request_count.fetch_sub(1, Relaxed);
}

fn refuse_dropped(dropped: Vec<(Waiting, DropReason)>) {
    for (Waiting { journey, .. }, why) in dropped {
        leave(&journey);
        let (status, reason) = match why {
            DropReason::SequenceCancelled => (StatusCode::Cancelled, FailureReason::Canceled),
            DropReason::SequenceExpired => (StatusCode::Unavailable, FailureReason::Rejected),
            DropReason::InstanceLost => (StatusCode::Unavailable, FailureReason::Other),
        };
        journey.fail(ServeError::new(status, why.to_string()), reason);
    }
}

fn refuse_late(late: Vec<Waiting>) {
    for Waiting { journey, .. } in late {
        leave(&journey);
        journey.fail(ServeError::unavailable("Request timeout expired"), FailureReason::Rejected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_scheduling::{Direct, InstanceSlots};

    #[test]
    fn who_takes_an_instance_out_can_wait_for_its_end() {
        let queue = Queue::new(Dispatcher::new(Direct::new(), InstanceSlots::new(2, None)), false);
        let retired = [InstanceId(1)];
        queue.change_instances(0, None, &retired);
        queue.wait_ended(&retired, Duration::from_millis(1));
        assert!(lock(&queue.state).gone.is_empty(), "only the time was over");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let work = queue.next(InstanceId(1), None, &mut Vec::new(), &mut Vec::new());
                assert!(matches!(work, Work::End));
                queue.instance_ended(InstanceId(1));
            });
            queue.wait_ended(&retired, Duration::from_secs(60));
            assert!(lock(&queue.state).gone.contains(&InstanceId(1)));
        });
    }
}
