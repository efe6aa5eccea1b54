//! Events per second of the scheduler on one core. `cargo run --release -p trireme-scheduling --example speed`
//!
//! An event is an arrival, an execution's end, a finished request or a cancellation; the dispatcher is polled after
//! every one of them but the finishes, which come with their execution's end.
#![allow(clippy::print_stdout, reason = "prints its result")]
#![expect(clippy::disallowed_types, reason = "measures real time")]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Instant;

use trireme_scheduling::{
    Actions, Direct, Dispatcher, Dynamic, DynamicConfig, InstanceId, InstanceSlots, RequestId, RequestInfo,
    ShapeKey, Time,
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
    all.into_iter().for_each(run);
}

fn run(mut load: Load) {
    let mut actions = Actions::new();
    let mut running: VecDeque<(InstanceId, usize)> = VecDeque::new();
    let (mut events, mut left, mut batches) = (0u64, 0u64, 0u64);
    let begin = Instant::now();
    for n in 0..REQUESTS {
        let now = Time(n * 100);
        let mut info = RequestInfo::new(RequestId(n), ShapeKey(u128::from(n / 5 % load.shapes)), now);
        info.deadline = load.deadlines.then(|| now.after_us(60_000_000));
        events += 1;
        if load.dispatcher.on_arrival(info).is_err() {
            left += 1;
        }
        poll(&mut load, now, &mut actions, &mut running, &mut batches);
        if load.cancel_every.is_some_and(|every| n % every == 0) {
            events += 1;
            left += u64::from(load.dispatcher.on_cancel(RequestId(n.saturating_sub(load.depth / 2))));
            poll(&mut load, now, &mut actions, &mut running, &mut batches);
        }
        while load.dispatcher.pending() as u64 > load.depth || (load.depth == 0 && !running.is_empty()) {
            let Some((instance, requests)) = running.pop_front() else { break };
            for _ in 0..requests {
                load.dispatcher.on_request_finished(instance);
            }
            left += requests as u64;
            load.dispatcher.on_instance_free(instance);
            events += 1 + requests as u64;
            poll(&mut load, now, &mut actions, &mut running, &mut batches);
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
}

fn poll(
    load: &mut Load,
    now: Time,
    actions: &mut Actions,
    running: &mut VecDeque<(InstanceId, usize)>,
    batches: &mut u64,
) {
    load.dispatcher.poll(now, actions);
    for (instance, batch) in actions.batches() {
        running.push_back((instance, batch.len()));
        *batches += 1;
    }
}
