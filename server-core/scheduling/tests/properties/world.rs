//! A dispatcher under random events, and a witness who checks every promise as it is kept.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::{Strategy as Gen, *};
use trireme_scheduling::invariants::{Rules, Strategy, Violation, Witness};
use trireme_scheduling::{
    Actions, Ask, Dispatcher, DynamicConfig, InstanceId, InstanceSlots, Policies, QueuePolicy, Refusal,
    RequestId, RequestInfo, Scheduler, ShapeKey, Time, TimeoutAction,
};

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Arrive {
        size: u32,
        shape: u8,
        deadline_in: Option<u64>,
        priority: u64,
        timeout_us: Option<u64>,
    },
    /// The n-th request that ever arrived, counted from the newest.
    Cancel(usize),
    Free(u32),
    Finish(u32),
    Down(u32),
    Sleep(u64),
    Poll,
    Close,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: DynamicConfig,
    pub(crate) instances: u32,
    pub(crate) max_in_flight: Option<NonZeroU32>,
}

pub(crate) fn setup() -> impl Gen<Value = Setup> {
    let config = (1..=20u32).prop_flat_map(|max| {
        (Just(max), prop::collection::vec(1..=max, 0..4), prop_oneof![Just(0), 1..40u64])
    });
    (config, policies(), 1..4u32, prop::option::of(1..12u32)).prop_map(
        |((max, preferred, delay_us), policies, instances, in_flight)| Setup {
            config: DynamicConfig::new(max, &preferred, delay_us).unwrap().with_policies(policies),
            instances,
            max_in_flight: in_flight.and_then(NonZeroU32::new),
        },
    )
}

/// In half of the worlds without effect.
fn policies() -> impl Gen<Value = Policies> {
    let action = prop_oneof![Just(TimeoutAction::Reject), Just(TimeoutAction::Delay)];
    let policy =
        (action, prop_oneof![Just(0), 1..60u64], any::<bool>(), prop_oneof![2 => Just(0), 1 => 1..9u32]);
    let policy = policy.prop_map(|(timeout_action, default, allow_timeout_override, max_queue_size)| {
        let default_timeout_microseconds = default;
        QueuePolicy { timeout_action, default_timeout_microseconds, allow_timeout_override, max_queue_size }
    });
    let levels = (0..4u64).prop_flat_map(|levels| {
        let some = 0..levels.min(3) as usize + 1;
        (Just(levels), 1..=levels.max(1), prop::collection::vec(1..=levels.max(1), some))
    });
    let policies =
        (levels, prop::collection::vec(policy, 4)).prop_map(|((levels, default, named), policies)| {
            let named = named.into_iter().zip(policies.iter().copied());
            Policies::new(levels, default, policies[3], named.collect::<Vec<_>>()).unwrap()
        });
    prop_oneof![Just(Policies::default()), policies]
}

/// Where `info` stands in the queue at `now`; the smallest is served first. `number` counts arrivals.
pub(crate) fn rank(
    policies: &Policies,
    info: &RequestInfo,
    number: u64,
    now: Time,
) -> (u64, Option<Time>, u64) {
    let level = policies.level_of(info.priority);
    let policy = policies.policy_of(level);
    let timeout = policy.timeout_us(info.timeout_us).map(|us| info.arrival.after_us(us));
    let late_at = timeout.filter(|&at| policy.timeout_action == TimeoutAction::Delay && at <= now);
    (level, late_at, number)
}

/// When `info` expires.
pub(crate) fn end(policies: &Policies, info: &RequestInfo) -> Option<Time> {
    let policy = policies.policy_of(policies.level_of(info.priority));
    let rejects = policy.timeout_action == TimeoutAction::Reject;
    let timeout = policy.timeout_us(info.timeout_us).filter(|_| rejects).map(|us| info.arrival.after_us(us));
    info.deadline.into_iter().chain(timeout).min()
}

pub(crate) fn events() -> impl Gen<Value = Vec<Event>> {
    let arrive = || {
        let shape = prop_oneof![6 => Just(0u8), 1 => 1..3u8];
        let deadline = prop::option::weighted(0.3, 0..80_000u64);
        (0..6u32, shape, deadline, 0..5u64, prop::option::weighted(0.3, 0..90u64)).prop_map(
            |(size, shape, deadline_in, priority, timeout_us)| Event::Arrive {
                size,
                shape,
                deadline_in,
                priority,
                timeout_us,
            },
        )
    };
    let event = prop_oneof![
        40 => arrive(),
        6 => (0..20usize).prop_map(Event::Cancel),
        12 => (0..3u32).prop_map(Event::Free),
        12 => (0..3u32).prop_map(Event::Finish),
        1 => (0..3u32).prop_map(Event::Down),
        12 => (0..30_000u64).prop_map(Event::Sleep),
        30 => Just(Event::Poll),
    ];
    (prop::collection::vec(event, 0..250), prop::option::weighted(0.2, 0..250usize)).prop_map(
        |(mut events, close)| {
            if let Some(at) = close.filter(|&at| at < events.len()) {
                events.insert(at, Event::Close);
            }
            events
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Queued,
    Left,
}

pub(crate) fn kept(checked: Result<(), Violation>) {
    if let Err(violation) = checked {
        panic!("{violation}");
    }
}

/// What one poll said, for comparison: batches, expired, wake.
pub(crate) type Said = (Vec<(InstanceId, Vec<RequestId>)>, Vec<RequestId>, Option<Time>);

pub(crate) struct World {
    setup: Setup,
    dispatcher: Dispatcher,
    /// A model without a batcher runs every request alone, however large.
    direct: bool,
    /// For a single instance: it asks by itself whenever it is free. `None`: the dispatcher is polled.
    pub(crate) asks_while_free: Option<bool>,
    pub(crate) now: Time,
    requests: Vec<(RequestInfo, Fate)>,
    unfinished: BTreeMap<u32, usize>,
    actions: Actions,
    witness: Witness,
}

impl World {
    pub(crate) fn new(setup: &Setup, scheduler: impl Scheduler + 'static, direct: bool) -> Self {
        Self {
            dispatcher: Dispatcher::new(scheduler, InstanceSlots::new(setup.instances, setup.max_in_flight)),
            witness: Witness::new(Rules {
                strategy: if direct { Strategy::Single } else { Strategy::Dynamic },
                max_batch_size: setup.config.max_batch_size(),
                policies: setup.config.policies().clone(),
                max_in_flight: setup.max_in_flight.map(|max| max.get() as usize),
            }),
            setup: setup.clone(),
            direct,
            asks_while_free: None,
            now: Time(1_000),
            requests: Vec::new(),
            unfinished: BTreeMap::new(),
            actions: Actions::new(),
        }
    }

    /// Applies one event; what the dispatcher answered to it, as text.
    pub(crate) fn apply(&mut self, event: &Event) -> String {
        match *event {
            Event::Arrive { size, shape, deadline_in, priority, timeout_us } => {
                let id = RequestId(self.requests.len() as u64);
                let mut info = RequestInfo::new(id, ShapeKey(u128::from(shape)), self.now);
                info.size = size;
                (info.priority, info.timeout_us) = (priority, timeout_us);
                info.deadline = deadline_in.map(|ns| self.now.after_ns(ns));
                let answer = self.dispatcher.on_arrival(info);
                kept(self.witness.on_arrival(&info, None, &answer));
                let fate = if answer.is_ok() { Fate::Queued } else { Fate::Left };
                if let Err(Refusal::QueueFull { max }) = answer {
                    assert_eq!(max as usize, self.waiting_beside(&info), "refused in spite of room");
                }
                assert!(answer.is_err() || !self.dispatcher.is_closed(), "taken after close");
                self.requests.push((info, fate));
                return format!("{answer:?}");
            }
            Event::Cancel(back) => {
                let Some(index) = self.requests.len().checked_sub(back + 1) else { return String::new() };
                let was_queued = self.requests[index].1 == Fate::Queued;
                assert_eq!(self.dispatcher.on_cancel(RequestId(index as u64)), was_queued);
                self.requests[index].1 = Fate::Left;
                if was_queued {
                    kept(self.witness.on_cancelled(RequestId(index as u64)));
                }
            }
            Event::Free(_) if self.asks_while_free.is_some() => self.asks_while_free = Some(true),
            Event::Down(_) if self.asks_while_free.is_some() => self.asks_while_free = Some(false),
            Event::Free(instance) => {
                self.dispatcher.on_instance_free(InstanceId(instance % self.setup.instances))
            }
            Event::Down(instance) => {
                self.dispatcher.on_instance_down(InstanceId(instance % self.setup.instances))
            }
            Event::Finish(instance) => {
                let instance = instance % self.setup.instances;
                let held = self.unfinished.entry(instance).or_default();
                assert_eq!(self.dispatcher.on_request_finished(InstanceId(instance)), *held > 0);
                if *held > 0 {
                    kept(self.witness.on_done(InstanceId(instance), RequestId(0)));
                }
                *held = held.saturating_sub(1);
            }
            Event::Sleep(ns) => self.now = self.now.after_ns(ns),
            Event::Poll if self.asks_while_free.is_some() => return format!("{:?}", self.ask()),
            Event::Poll => return format!("{:?}", self.poll()),
            Event::Close => {
                self.dispatcher.close();
                self.witness.on_close();
            }
        }
        String::new()
    }

    pub(crate) fn poll(&mut self) -> Said {
        let mut actions = std::mem::take(&mut self.actions);
        self.dispatcher.poll(self.now, &mut actions);
        for &id in &actions.expired {
            kept(self.witness.on_expired(id, self.now));
            let info = self.leave(id);
            assert!(self.end(&info).is_some_and(|end| end <= self.now), "{id:?} expired too early");
        }
        for (instance, batch) in actions.batches() {
            kept(self.witness.on_batch(instance, batch, &[], self.now));
            self.check_batch(instance, batch);
        }
        let queued: Vec<&RequestInfo> =
            self.requests.iter().filter(|(_, fate)| *fate == Fate::Queued).map(|(info, _)| info).collect();
        assert_eq!(self.dispatcher.pending(), queued.len());
        assert_eq!(self.witness.pending(), queued.len());
        kept(self.witness.check_due(self.now));
        assert!(actions.wake.is_none_or(|wake| wake > self.now), "wake-up storm");
        for deadline in queued.iter().filter_map(|info| self.end(info)) {
            assert!(deadline > self.now, "an expired request is kept");
            assert!(actions.wake.is_some_and(|wake| wake <= deadline), "a deadline would be slept over");
        }
        let said = (
            actions.batches().map(|(instance, batch)| (instance, batch.to_vec())).collect(),
            actions.expired.clone(),
            actions.wake,
        );
        self.actions = actions;
        said
    }

    /// What [`Self::poll`] says, said by an instance that asks.
    fn ask(&mut self) -> Said {
        let (mut batch, mut expired, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        let mut wake = None;
        if self.asks_while_free == Some(true) {
            match self.dispatcher.take_batch(InstanceId(0), self.now, &mut batch, &mut expired) {
                Ask::Batch(len) => {
                    assert_eq!(len, batch.len());
                    batches.push((InstanceId(0), batch));
                    self.asks_while_free = Some(false);
                    wake = self.dispatcher.next_deadline();
                }
                Ask::WakeAt(time) => wake = Some(time),
                Ask::Idle => {}
                Ask::Closed => assert!(self.dispatcher.is_closed() && self.dispatcher.pending() == 0),
            }
        } else {
            self.dispatcher.expire(self.now, &mut expired);
            wake = self.dispatcher.next_deadline();
        }
        for &id in batches.iter().flat_map(|(_, batch)| batch).chain(&expired) {
            self.leave(id);
        }
        expired.iter().for_each(|&id| kept(self.witness.on_expired(id, self.now)));
        for (instance, batch) in &batches {
            kept(self.witness.on_batch(*instance, batch, &[], self.now));
        }
        *self.unfinished.entry(0).or_default() += batches.iter().map(|(_, batch)| batch.len()).sum::<usize>();
        (batches, expired, wake)
    }

    /// Frees every instance again and again, sleeping as told, until nothing is queued.
    pub(crate) fn drain(&mut self) {
        for _ in 0..4 * self.requests.len() + 4 {
            for instance in 0..self.setup.instances {
                while self.unfinished.get(&instance).is_some_and(|&held| held > 0) {
                    self.apply(&Event::Finish(instance));
                }
                self.apply(&Event::Free(instance));
            }
            let (batches, _, wake) = self.poll();
            if self.dispatcher.pending() == 0 {
                assert!(self.requests.iter().all(|(_, fate)| *fate == Fate::Left), "a request was lost");
                kept(self.witness.check_empty());
                return;
            }
            if batches.is_empty() {
                self.now = wake.expect("a queued request, free instances, and nobody will wake");
            }
        }
        panic!("the queue does not empty");
    }

    fn check_batch(&mut self, instance: InstanceId, batch: &[RequestId]) {
        assert!(!batch.is_empty(), "an empty batch");
        let infos: Vec<RequestInfo> = batch.iter().map(|&id| self.leave(id)).collect();
        let total: u32 = infos.iter().map(|info| info.size.max(1)).sum();
        if self.direct {
            assert_eq!(batch.len(), 1);
        } else {
            assert!(total <= self.setup.config.max_batch_size(), "a batch of {total}");
        }
        assert!(infos.iter().all(|info| info.shape_key == infos[0].shape_key), "shapes are mixed");
        assert!(infos.iter().all(|info| self.end(info).is_none_or(|end| end > self.now)), "run too late");
        // By level, on time before late, then first come, first served: nobody who stands before the last of
        // the batch is left behind.
        let ranks: Vec<_> = infos.iter().map(|info| self.rank(info)).collect();
        assert!(ranks.is_sorted(), "order within the batch");
        let queued = self.requests.iter().filter(|(_, fate)| *fate == Fate::Queued);
        let first = queued.map(|(info, _)| self.rank(info)).min();
        assert!(first.is_none_or(|first| ranks[ranks.len() - 1] < first), "overtaken");
        let held = self.unfinished.entry(instance.0).or_default();
        *held += batch.len();
        if let Some(max) = self.setup.max_in_flight {
            assert!(*held <= max.get() as usize, "instance {instance:?} holds {held}");
        }
    }

    /// Without a batcher there are no levels and no timeouts.
    fn policies(&self) -> Policies {
        if self.direct { Policies::default() } else { self.setup.config.policies().clone() }
    }

    fn end(&self, info: &RequestInfo) -> Option<Time> {
        end(&self.policies(), info)
    }

    fn rank(&self, info: &RequestInfo) -> (u64, Option<Time>, u64) {
        rank(&self.policies(), info, info.id.0, self.now)
    }

    /// Requests that wait in the level of `info`.
    fn waiting_beside(&self, info: &RequestInfo) -> usize {
        let (policies, level) = (self.policies(), self.rank(info).0);
        let queued = self.requests.iter().filter(|(_, fate)| *fate == Fate::Queued);
        queued.filter(|(info, _)| policies.level_of(info.priority) == level).count()
    }

    /// Marks a request as gone; it must have been queued.
    fn leave(&mut self, id: RequestId) -> RequestInfo {
        let (info, fate) = &mut self.requests[id.0 as usize];
        assert_eq!(*fate, Fate::Queued, "{id:?} left twice");
        *fate = Fate::Left;
        *info
    }
}
