//! Events per second of the scheduler on one core. `cargo run --release -p trireme-scheduling --example speed`
//!
//! An event is an arrival, an execution's end, a finished request or a cancellation; the dispatcher is polled after
//! every one of them but the finishes, which come with their execution's end.
#![allow(clippy::print_stdout, reason = "prints its result")]
#![expect(clippy::disallowed_types, reason = "measures real time")]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Instant;

use trireme_scheduling::invariants::{Rules, Strategy, Witness};
use trireme_scheduling::{
    Actions, CorrelationId, Direct, DirectSequenceConfig, DirectSequences, Dispatcher, Dynamic,
    DynamicConfig, InstanceId, InstanceSlots, OldestSequenceConfig, OldestSequences, Policies, QueuePolicy,
    RequestId, RequestInfo, SequenceStep, ShapeKey, Time,
};

const REQUESTS: u64 = 2_000_000;

struct Load {
    name: &'static str,
    dispatcher: Dispatcher,
    /// The queue is kept this deep.
    depth: u64,
    shapes: u64,
    deadlines: bool,
    cancel_every: Option<u64>,
    /// Priorities from 1 to this one in turn.
    levels: u64,
    /// So many sequences of ten requests at a time.
    sequences: u64,
    witness: Option<Witness>,
}

fn main() {
    let dynamic = |max, preferred: &[u32], delay_us| {
        DynamicConfig::new(max, preferred, delay_us)
            .map(Dynamic::new)
            .map_err(|error| println!("{error}"))
            .ok()
    };
    let one = || InstanceSlots::new(1, None);
    let (Some(plain), Some(preferred), Some(wide), Some(delayed), Some(shapes), Some(llm)) = (
        dynamic(32, &[4, 8, 16, 32], 0),
        dynamic(32, &[4, 8, 16, 32], 100_000),
        dynamic(1024, &[], 0),
        dynamic(1024, &[], 100_000),
        dynamic(32, &[], 100_000),
        dynamic(256, &[], 0),
    ) else {
        return;
    };
    let load = |name, dispatcher, depth| Load {
        name,
        dispatcher,
        depth,
        shapes: 1,
        deadlines: false,
        cancel_every: None,
        levels: 0,
        sequences: 0,
        witness: None,
    };
    let loads = [
        load("direct, 4 instances, shallow", Dispatcher::new(Direct::new(), InstanceSlots::new(4, None)), 16),
        load("direct, 10,000 deep", Dispatcher::new(Direct::new(), one()), 10_000),
        load("dynamic 4,8,16,32, shallow", Dispatcher::new(plain, one()), 64),
        load("dynamic 4,8,16,32 + delay, 10,000 deep", Dispatcher::new(preferred, one()), 10_000),
        load("dynamic max 1024, 10,000 deep", Dispatcher::new(wide, one()), 10_000),
        load("dynamic max 1024 + delay, grows one by one", Dispatcher::new(delayed, one()), 0),
        Load { shapes: 3, ..load("dynamic, 3 shapes, 10,000 deep", Dispatcher::new(shapes, one()), 10_000) },
        load(
            "dynamic, 256 in flight, 10,000 deep",
            Dispatcher::new(llm, InstanceSlots::new(1, NonZeroU32::new(256))),
            10_000,
        ),
    ];
    let mut all = Vec::from(loads);
    if let (Some(batcher), Some(batcher2)) = (dynamic(32, &[], 0), dynamic(32, &[], 0)) {
        let deep = load("dynamic with deadlines, 10,000 deep", Dispatcher::new(batcher, one()), 10_000);
        all.push(Load { deadlines: true, ..deep });
        let deep = load("dynamic, 1 in 3 cancelled, 10,000 deep", Dispatcher::new(batcher2, one()), 10_000);
        all.push(Load { cancel_every: Some(3), ..deep });
    }
    let policy = QueuePolicy { default_timeout_microseconds: 60_000_000, ..QueuePolicy::default() };
    if let (Ok(policies), Some(levels), Some(seen)) = (
        Policies::new(4, 4, policy, []),
        DynamicConfig::new(32, &[], 0).ok(),
        DynamicConfig::new(32, &[], 0).ok(),
    ) {
        let batcher = Dynamic::new(levels.with_policies(policies.clone()));
        let deep = load("dynamic, 4 levels, timeouts, 10,000 deep", Dispatcher::new(batcher, one()), 10_000);
        all.push(Load { levels: 4, ..deep });
        let batcher = Dynamic::new(seen.with_policies(policies.clone()));
        let deep = load("the same, with a witness", Dispatcher::new(batcher, one()), 10_000);
        let rules = Rules { strategy: Strategy::Dynamic, max_batch_size: 32, policies, max_in_flight: None };
        all.push(Load { levels: 4, witness: Some(Witness::new(rules)), ..deep });
    }
    if let (Ok(direct), Ok(oldest)) =
        (DirectSequenceConfig::new(32, 0, 0, 0.0), OldestSequenceConfig::new(32, 0, 64, &[], 0))
    {
        let rules = |strategy| {
            Witness::new(Rules {
                strategy,
                max_batch_size: 32,
                policies: Policies::default(),
                max_in_flight: None,
            })
        };
        for (witnessed, note) in [(false, ""), (true, ", with a witness")] {
            let witness = |strategy| witnessed.then(|| rules(strategy));
            let name: &str = Box::leak(format!("sequences, direct{note}").into_boxed_str());
            let batcher = Dispatcher::new(DirectSequences::new(direct.clone()), one());
            let witness_direct = witness(Strategy::DirectSequences);
            all.push(Load { sequences: 32, witness: witness_direct, ..load(name, batcher, 256) });
            let name: &str = Box::leak(format!("sequences, oldest{note}").into_boxed_str());
            let batcher = Dispatcher::new(OldestSequences::new(oldest.clone()), one());
            let witness_oldest = witness(Strategy::OldestSequences);
            all.push(Load { sequences: 64, witness: witness_oldest, ..load(name, batcher, 256) });
        }
    }
    all.into_iter().for_each(run);
}

fn run(mut load: Load) {
    let mut actions = Actions::new();
    let mut running: VecDeque<(InstanceId, Vec<RequestId>)> = VecDeque::new();
    let (mut events, mut left, mut batches, mut broken) = (0u64, 0u64, 0u64, 0u64);
    let begin = Instant::now();
    for n in 0..REQUESTS {
        let now = Time(n * 100);
        let mut info = RequestInfo::new(RequestId(n), ShapeKey(u128::from(n / 5 % load.shapes)), now);
        info.deadline = load.deadlines.then(|| now.after_us(60_000_000));
        info.priority = if load.levels > 0 { 1 + n % load.levels } else { 0 };
        events += 1;
        let step = (load.sequences > 0).then(|| {
            // Each sequence has ten requests, one in every round.
            let (round, number) = (n / load.sequences, 1 + n % load.sequences);
            let correlation = CorrelationId::Number(number);
            SequenceStep { correlation, start: round % 10 == 0, end: round % 10 == 9 }
        });
        let answer = match &step {
            Some(step) => load.dispatcher.on_sequence_arrival(info, step.clone()),
            None => load.dispatcher.on_arrival(info),
        };
        let seen = load.witness.as_mut().map(|witness| witness.on_arrival(&info, step.as_ref(), &answer));
        broken += u64::from(seen.is_some_and(|seen| seen.is_err()));
        left += u64::from(answer.is_err());
        poll(&mut load, now, &mut actions, &mut running, &mut batches, &mut broken);
        if load.cancel_every.is_some_and(|every| n % every == 0) {
            events += 1;
            left += u64::from(load.dispatcher.on_cancel(RequestId(n.saturating_sub(load.depth / 2))));
            poll(&mut load, now, &mut actions, &mut running, &mut batches, &mut broken);
        }
        while load.dispatcher.pending() as u64 > load.depth || (load.depth == 0 && !running.is_empty()) {
            let Some((instance, batch)) = running.pop_front() else { break };
            for &id in &batch {
                load.dispatcher.on_request_done(instance, id);
                let seen = load.witness.as_mut().map(|witness| witness.on_done(instance, id));
                broken += u64::from(seen.is_some_and(|seen| seen.is_err()));
            }
            left += batch.len() as u64;
            load.dispatcher.on_instance_free(instance);
            events += 1 + batch.len() as u64;
            poll(&mut load, now, &mut actions, &mut running, &mut batches, &mut broken);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{:<45} {:>6.1} M events/s  {:>4.0} ns/request  {:>6.1} requests/batch",
        load.name,
        events as f64 / seconds / 1e6,
        seconds * 1e9 / REQUESTS as f64,
        left as f64 / batches.max(1) as f64,
    );
    if broken > 0 {
        println!("{broken} promises were not kept");
    }
}

fn poll(
    load: &mut Load,
    now: Time,
    actions: &mut Actions,
    running: &mut VecDeque<(InstanceId, Vec<RequestId>)>,
    batches: &mut u64,
    broken: &mut u64,
) {
    load.dispatcher.poll(now, actions);
    for (instance, batch) in actions.batches() {
        let rows = load.dispatcher.rows(instance);
        let seen = load.witness.as_mut().map(|witness| witness.on_batch(instance, batch, rows, now));
        *broken += u64::from(seen.is_some_and(|seen| seen.is_err()));
        running.push_back((instance, batch.to_vec()));
        *batches += 1;
    }
}
