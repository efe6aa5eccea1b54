//! Random sequences under random arrivals, cancellations, timeouts and instance events on virtual time.

use std::num::NonZeroU32;

use proptest::prelude::{Strategy as Gen, *};
use trireme_scheduling::invariants::{Rules, Strategy, Witness};
use trireme_scheduling::{
    Actions, Ask, CorrelationId, DirectSequenceConfig, DirectSequences, Dispatcher, DynamicConfig,
    InstanceId, InstanceSlots, OldestSequenceConfig, OldestSequences, Policies, RequestId, RequestInfo,
    Scheduler, SequenceStep, ShapeKey, Time,
};

use crate::naive_sequences::{Kind, NaiveSequences, Plan};
use crate::world::kept;

#[derive(Clone, Debug)]
enum Event {
    Arrive {
        sequence: u64,
        start: bool,
        end: bool,
        shape: u8,
        deadline_in: Option<u64>,
        timeout_us: Option<u64>,
    },
    /// The n-th request that ever arrived, counted from the newest.
    Cancel(usize),
    Free(u32),
    /// The n-th of those that run.
    Done(usize),
    Down(u32),
    Retire(u32),
    Add,
    Sleep(u64),
    Poll,
    Close,
}

#[derive(Clone, Debug)]
struct Setup {
    max: u32,
    candidates: u32,
    preferred: Vec<u32>,
    delay_us: u64,
    share: f32,
    idle_us: u64,
    instances: u32,
    max_in_flight: Option<u32>,
}

impl Setup {
    fn in_flight(&self) -> Option<NonZeroU32> {
        self.max_in_flight.and_then(NonZeroU32::new)
    }

    fn direct(&self) -> DirectSequences {
        DirectSequences::new(
            DirectSequenceConfig::new(self.max, self.idle_us, self.delay_us, self.share).unwrap(),
        )
    }

    fn oldest(&self) -> OldestSequences {
        let preferred = &self.preferred;
        OldestSequences::new(
            OldestSequenceConfig::new(self.max, self.idle_us, self.candidates, preferred, self.delay_us)
                .unwrap(),
        )
    }

    fn naive(&self, strategy: Strategy) -> NaiveSequences {
        let idle_ns = self.idle_us * 1_000;
        if strategy == Strategy::DirectSequences {
            let kind = Kind::Direct { delay_ns: self.delay_us * 1_000, share: self.share };
            return NaiveSequences::new(Plan { slots: self.max.max(1), idle_ns, kind });
        }
        let batching = DynamicConfig::new(self.max, &self.preferred, self.delay_us).unwrap();
        let slots = if self.candidates > 0 { self.candidates } else { self.max.max(1) };
        NaiveSequences::new(Plan { slots, idle_ns, kind: Kind::Oldest(batching) })
    }
}

fn setup() -> impl Gen<Value = Setup> {
    let sizes = (0..5u32).prop_flat_map(|max| {
        (Just(max), 0..5u32, prop::collection::vec(1..=max.max(1), 0..3), prop_oneof![Just(0), 1..40u64])
    });
    let share = prop_oneof![Just(0.0f32), Just(0.5), Just(1.0), 0.0..1.0f32];
    (sizes, share, 1..120u64, 1..4u32, prop::option::of(1..6u32)).prop_map(
        |((max, candidates, preferred, delay_us), share, idle_us, instances, max_in_flight)| Setup {
            max,
            candidates,
            preferred,
            delay_us,
            share,
            idle_us,
            instances,
            max_in_flight,
        },
    )
}

fn events() -> impl Gen<Value = Vec<Event>> {
    let arrive = || {
        let (start, end) = (prop::bool::weighted(0.4), prop::bool::weighted(0.2));
        let shape = prop_oneof![6 => Just(0u8), 1 => 1..3u8];
        let (deadline, timeout) =
            (prop::option::weighted(0.1, 0..80_000u64), prop::option::weighted(0.2, 0..90u64));
        (1..7u64, start, end, shape, deadline, timeout).prop_map(
            |(sequence, start, end, shape, deadline_in, timeout_us)| Event::Arrive {
                sequence,
                start,
                end,
                shape,
                deadline_in,
                timeout_us,
            },
        )
    };
    let event = prop_oneof![
        45 => arrive(),
        4 => (0..20usize).prop_map(Event::Cancel),
        14 => (0..4u32).prop_map(Event::Free),
        18 => (0..8usize).prop_map(Event::Done),
        1 => (0..4u32).prop_map(Event::Down),
        1 => (0..4u32).prop_map(Event::Retire),
        1 => Just(Event::Add),
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

struct World {
    setup: Setup,
    dispatcher: Dispatcher,
    witness: Witness,
    now: Time,
    arrivals: u64,
    running: Vec<(InstanceId, RequestId)>,
    actions: Actions,
    /// It is polled before time passes and whenever it asked to be woken. What time does to a sequence and
    /// what happens to it without a time of its own can then be told apart, so that two schedulers must
    /// agree.
    prompt: bool,
    /// For a single instance: it asks by itself whenever it is free. `None`: the dispatcher is polled.
    asks_while_free: Option<bool>,
}

impl World {
    fn new(setup: &Setup, strategy: Strategy, scheduler: impl Scheduler + 'static) -> Self {
        let rules = Rules {
            strategy,
            max_batch_size: setup.max,
            policies: Policies::default(),
            max_in_flight: setup.max_in_flight.map(|max| max as usize),
        };
        Self {
            setup: setup.clone(),
            dispatcher: Dispatcher::new(scheduler, InstanceSlots::new(setup.instances, setup.in_flight())),
            witness: Witness::new(rules),
            now: Time(1_000),
            arrivals: 0,
            running: Vec::new(),
            actions: Actions::new(),
            prompt: false,
            asks_while_free: None,
        }
    }

    fn instance(&self, n: u32) -> InstanceId {
        InstanceId(n % self.dispatcher.instances().len() as u32)
    }

    /// Applies one event; what the dispatcher answered to it, as text.
    fn apply(&mut self, event: &Event) -> String {
        match *event {
            Event::Arrive { sequence, start, end, shape, deadline_in, timeout_us } => {
                let mut info = RequestInfo::new(RequestId(self.arrivals), ShapeKey(shape.into()), self.now);
                self.arrivals += 1;
                info.timeout_us = timeout_us;
                info.deadline = deadline_in.map(|ns| self.now.after_ns(ns));
                let step = SequenceStep { correlation: CorrelationId::Number(sequence), start, end };
                let answer = self.dispatcher.on_sequence_arrival(info, step.clone());
                // Some may have left before this one came; they are reported first.
                let mut dropped = Vec::new();
                self.dispatcher.take_dropped(&mut dropped);
                dropped.iter().for_each(|(id, _)| kept(self.witness.on_dropped(*id)));
                kept(self.witness.on_arrival(&info, Some(&step), &answer));
                return format!("{answer:?} {dropped:?}");
            }
            Event::Cancel(back) => {
                let Some(id) = self.arrivals.checked_sub(back as u64 + 1).map(RequestId) else {
                    return String::new();
                };
                let cancelled = self.dispatcher.on_cancel(id);
                if cancelled {
                    kept(self.witness.on_cancelled(id));
                }
                return format!("{cancelled}");
            }
            Event::Free(n) => {
                self.dispatcher.on_instance_free(self.instance(n));
                self.asks_while_free = self.asks_while_free.map(|_| true);
            }
            Event::Done(n) => {
                if n < self.running.len() {
                    let (instance, id) = self.running.remove(n);
                    assert!(self.dispatcher.on_request_done(instance, id));
                    kept(self.witness.on_done(instance, id));
                }
            }
            Event::Down(n) => {
                let instance = self.instance(n);
                self.dispatcher.on_instance_down(instance);
                self.witness.on_instance_down(instance);
                self.asks_while_free = self.asks_while_free.map(|_| false);
            }
            Event::Retire(n) => self.dispatcher.retire_instance(self.instance(n)),
            Event::Add => drop(self.dispatcher.add_instance(self.setup.in_flight())),
            Event::Sleep(ns) if self.prompt => return self.sleep_as_told(self.now.after_ns(ns)),
            Event::Sleep(ns) => self.now = self.now.after_ns(ns),
            Event::Poll => return self.poll(),
            Event::Close => {
                self.dispatcher.close();
                self.witness.on_close();
            }
        }
        String::new()
    }

    fn sleep_as_told(&mut self, until: Time) -> String {
        let mut said = self.poll();
        while let Some(wake) = self.actions.wake.filter(|&wake| wake <= until) {
            self.now = wake;
            said += &self.poll();
        }
        self.now = until;
        said
    }

    fn poll(&mut self) -> String {
        let mut actions = std::mem::take(&mut self.actions);
        let asked = self.asks_while_free.map(|free| self.ask(free, &mut actions));
        if asked.is_none() {
            self.dispatcher.poll(self.now, &mut actions);
        }
        for &id in &actions.expired {
            kept(self.witness.on_expired(id, self.now));
        }
        for (id, _) in &actions.dropped {
            kept(self.witness.on_dropped(*id));
        }
        let mut said = String::new();
        let taken = asked.iter().filter(|batch| !batch.is_empty());
        let batches = taken.map(|batch| (InstanceId(0), batch.as_slice()));
        for (instance, batch) in batches.chain(actions.batches()) {
            let rows = self.dispatcher.rows(instance);
            kept(self.witness.on_batch(instance, batch, rows, self.now));
            self.running.extend(batch.iter().map(|id| (instance, *id)));
            said += &format!("{instance:?} {rows:?} ");
        }
        kept(self.witness.check_due(self.now));
        assert_eq!(self.dispatcher.pending(), self.witness.pending());
        assert!(actions.wake.is_none_or(|wake| wake > self.now), "wake-up storm");
        let end = self.witness.next_end();
        assert!(
            end.is_none_or(|end| actions.wake.is_some_and(|wake| wake <= end)),
            "a deadline is slept over"
        );
        let (expired, dropped, wake) = (&actions.expired, &actions.dropped, actions.wake);
        let (open, age) = (self.dispatcher.open_sequences(), self.dispatcher.oldest_age_ns(self.now));
        let retired: Vec<bool> = (0..self.dispatcher.instances().len() as u32)
            .map(|n| self.dispatcher.is_retired(InstanceId(n)))
            .collect();
        said += &format!("{expired:?} {dropped:?} {wake:?} {open} {age} {retired:?}");
        self.actions = actions;
        said
    }

    /// What a poll does, done by an instance that asks; its batch is returned, all else is put into `actions`.
    fn ask(&mut self, free: bool, actions: &mut Actions) -> Vec<RequestId> {
        *actions = Actions::new();
        let mut batch = Vec::new();
        let ask = if free {
            self.dispatcher.take_batch(InstanceId(0), self.now, &mut batch, &mut actions.expired)
        } else {
            self.dispatcher.expire(self.now, &mut actions.expired);
            Ask::Idle
        };
        self.dispatcher.take_dropped(&mut actions.dropped);
        actions.wake = match ask {
            Ask::WakeAt(time) => Some(time),
            Ask::Batch(_) | Ask::Idle => self.dispatcher.next_deadline(),
            Ask::Closed => None,
        };
        if ask == Ask::Closed {
            assert!(self.dispatcher.pending() == 0 && self.dispatcher.open_sequences() == 0);
        }
        self.asks_while_free = Some(free && batch.is_empty());
        batch
    }

    /// Frees every instance again and again, sleeping as told, until nothing waits and every sequence is
    /// over.
    fn drain(&mut self) {
        self.apply(&Event::Add);
        self.apply(&Event::Close);
        for _ in 0..8 * self.arrivals + 8 {
            while !self.running.is_empty() {
                self.apply(&Event::Done(0));
            }
            for n in 0..self.dispatcher.instances().len() as u32 {
                self.apply(&Event::Free(n));
            }
            self.poll();
            if self.dispatcher.is_drained() {
                kept(self.witness.check_empty());
                return;
            }
            if self.running.is_empty() {
                self.now = self.actions.wake.expect("not drained, free instances, and nobody will wake");
            }
        }
        panic!("does not drain: {:?}", self.setup);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_direct_strategy_keeps_its_promises(setup in setup(), events in events()) {
        let mut world = World::new(&setup, Strategy::DirectSequences, setup.direct());
        events.iter().for_each(|event| drop(world.apply(event)));
        world.drain();
    }

    #[test]
    fn the_oldest_strategy_keeps_its_promises(setup in setup(), events in events()) {
        let mut world = World::new(&setup, Strategy::OldestSequences, setup.oldest());
        events.iter().for_each(|event| drop(world.apply(event)));
        world.drain();
    }

    #[test]
    fn the_direct_strategy_answers_as_plain_lists_do(setup in setup(), events in events()) {
        let mut fast = World::new(&setup, Strategy::DirectSequences, setup.direct());
        let mut plain = World::new(&setup, Strategy::DirectSequences, setup.naive(Strategy::DirectSequences));
        (fast.prompt, plain.prompt) = (true, true);
        for (step, event) in events.iter().enumerate() {
            prop_assert_eq!(fast.apply(event), plain.apply(event), "step {}: {:?}", step, event);
        }
    }

    #[test]
    fn the_oldest_strategy_answers_as_plain_lists_do(setup in setup(), events in events()) {
        let mut fast = World::new(&setup, Strategy::OldestSequences, setup.oldest());
        let mut plain = World::new(&setup, Strategy::OldestSequences, setup.naive(Strategy::OldestSequences));
        (fast.prompt, plain.prompt) = (true, true);
        for (step, event) in events.iter().enumerate() {
            prop_assert_eq!(fast.apply(event), plain.apply(event), "step {}: {:?}", step, event);
        }
    }

    #[test]
    fn an_instance_that_asks_is_told_what_a_poll_says_of_sequences(
        mut setup in setup(),
        events in events(),
        oldest in any::<bool>(),
    ) {
        setup.instances = 1;
        let world = || match oldest {
            true => World::new(&setup, Strategy::OldestSequences, setup.oldest()),
            false => World::new(&setup, Strategy::DirectSequences, setup.direct()),
        };
        let (mut push, mut pull) = (world(), world());
        pull.asks_while_free = Some(true);
        let one = |event: &&Event| !matches!(event, Event::Add | Event::Retire(_));
        for (step, event) in events.iter().filter(one).enumerate() {
            prop_assert_eq!(push.apply(event), pull.apply(event), "step {}: {:?}", step, event);
        }
    }
}
