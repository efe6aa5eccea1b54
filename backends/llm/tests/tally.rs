//! What an engine counts and measures, on a clock of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex, mpsc};

use support::{Shape, Stub, VOCAB};
use trireme_llm::engine::{
    Core, CoreStats, Engine, EngineOptions, Event, Flow, Outcomes, Policy, Request, RequestError,
    RequestHandle, StepStats, Tally,
};
use trireme_llm::executor::Executor;
use trireme_llm::stop::StopRules;

const MS: u64 = 1_000_000;

fn options() -> EngineOptions {
    EngineOptions::new(Arc::new(|| 0))
}

/// Says exactly so many tokens.
fn request(prompt: u32, tokens: usize) -> Request {
    let prompt: Vec<u32> = (1..=prompt).collect();
    Request { ignore_eos: true, ..Request::new(prompt, StopRules::new(&[0], tokens).unwrap()) }
}

/// Runs one step that begins at `now` and takes 10 ms.
fn step(core: &mut Core, stub: &mut Stub, now: u64) -> bool {
    let Some(step) = core.plan(now) else { return false };
    core.submitted(stub.submit(&step).unwrap());
    let output = stub.wait(core.oldest_step().unwrap()).unwrap();
    core.complete(output, now + 10 * MS);
    true
}

#[test]
fn times_and_lengths_of_one_request() {
    let mut stub = Stub::new(Shape { slots: 4, budget: 8, blocks: 40, depth: 1 });
    let mut core = Core::new(stub.info.clone(), options()).unwrap();
    core.submit(0, request(32, 5), 5 * MS).unwrap();
    assert_eq!((core.stats().waiting, core.stats().running), (1, 0));
    // Four steps read the prompt; the last of them gives the first token.
    let mut now = 7 * MS;
    assert!(step(&mut core, &mut stub, now));
    assert_eq!(core.stats().step, StepStats { prompts: 1, prompt_tokens: 8, decodes: 0 });
    assert_eq!((core.stats().waiting, core.stats().running, core.stats().slots), (0, 1, 4));
    for _ in 0..4 {
        now += 10 * MS;
        assert!(step(&mut core, &mut stub, now));
    }
    assert_eq!(core.stats().step, StepStats { prompts: 0, prompt_tokens: 0, decodes: 1 });
    assert_eq!(core.stats().kv.used, 9);
    while !core.is_idle() {
        now += 10 * MS;
        assert!(step(&mut core, &mut stub, now));
    }
    let tally = core.tally();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
    for (histogram, count, sum) in [
        (&tally.queue_seconds, 1, 0.002),
        (&tally.first_token_seconds, 1, 0.042),
        (&tally.inter_token_seconds, 4, 0.040),
        (&tally.request_seconds, 1, 0.082),
        (&tally.prompt_lengths, 1, 32.0),
        (&tally.answer_lengths, 1, 5.0),
        (&tally.step_tokens, 8, 36.0),
    ] {
        assert_eq!(histogram.count(), count);
        close(histogram.sum(), sum);
    }
    // 10 ms is a bound: it counts for it, and not for the one above.
    assert_eq!(tally.inter_token_seconds.counts()[5], 4);
    assert_eq!((tally.generated_tokens, tally.cached_tokens), (5, 0));
    assert_eq!(tally.outcomes, Outcomes { answered: 1, ..Outcomes::default() });
    assert_eq!((core.stats().step, core.stats().steps), (StepStats::default(), 8));

    // The same prompt again: all but the last block is there.
    core.submit(1, request(32, 1), now).unwrap();
    assert!(step(&mut core, &mut stub, now));
    assert_eq!((core.tally().cached_tokens, core.stats().kv.reused), (28, 7));
    close(core.tally().first_token_seconds.sum(), 0.052);
}

#[test]
fn every_request_has_one_outcome() {
    let mut stub = Stub::new(Shape { slots: 2, budget: 8, blocks: 40, depth: 1 });
    let mut core = Core::new(stub.info.clone(), EngineOptions { max_waiting: 1, ..options() }).unwrap();
    core.submit(0, request(0, 3), 0).unwrap_err();
    core.submit(1, Request { deadline_ns: Some(15), ..request(3, 30) }, 0).unwrap();
    core.submit(2, request(4, 30), 0).unwrap();
    core.submit(3, request(5, 2), 0).unwrap();
    core.submit(4, request(5, 2), 0).unwrap_err();
    assert!(step(&mut core, &mut stub, 0));
    core.end(2, RequestError::Cancelled);
    for now in 1..20 {
        step(&mut core, &mut stub, now);
    }
    let expected = Outcomes { answered: 1, cancelled: 1, late: 1, refused: 2, failed: 0 };
    assert_eq!(core.tally().outcomes, expected);
    assert_eq!((core.tally().prompt_lengths.count(), core.tally().answer_lengths.count()), (3, 1));
    core.submit(5, request(3, 3), 20).unwrap();
    core.end_all(&RequestError::Stopped("a test".to_owned()));
    assert_eq!(core.tally().outcomes, Outcomes { failed: 1, ..expected });
}

#[test]
fn preempted_answers_are_counted_while_they_wait() {
    let mut stub = Stub::new(Shape { slots: 6, budget: 24, blocks: 12, depth: 1 });
    let options = EngineOptions { policy: Policy::MaxUtilization, ..options() };
    let mut core = Core::new(stub.info.clone(), options).unwrap();
    let first: Vec<u32> = (1..VOCAB as u32).take(9).collect();
    for (id, token) in (0..).zip(first) {
        let one = Request { prompt: [token; 3].as_slice().into(), ..request(3, 24) };
        core.submit(id, one, 0).unwrap();
    }
    let mut most = 0;
    while !core.is_idle() {
        assert!(step(&mut core, &mut stub, 0));
        let stats = core.stats();
        assert!(stats.preempted <= stats.waiting);
        most = most.max(stats.preempted);
    }
    let stats = core.stats();
    assert!(most > 0 && stats.preemptions > 0, "{stats:?}");
    assert_eq!((stats.preempted, stats.waiting, core.tally().outcomes.answered), (0, 0, 9));
    // Whoever is computed again gets no second first token and no second start.
    let tally = core.tally();
    assert_eq!((tally.first_token_seconds.count(), tally.queue_seconds.count()), (9, 9));
    assert_eq!(tally.generated_tokens, 9 * 24);
}

/// A thousand tokens that were read before: the second request's first token comes after one step, the first one's after
/// sixteen; both while another is being answered.
#[test]
fn the_first_token_behind_a_prefix_that_is_there() {
    let shape = Shape { slots: 4, budget: 64, blocks: 600, depth: 1 };
    let mut stub = Stub::with_context(shape, 2000);
    let mut core = Core::new(stub.info.clone(), options()).unwrap();
    core.submit(0, request(3, 500), 0).unwrap();
    assert!(step(&mut core, &mut stub, 0));
    let mut prompt: Vec<u32> = (0..1000).map(|i| i * 7 % (VOCAB as u32 - 1) + 1).collect();
    prompt.extend([0; 20]);
    let mut now = 0;
    let mut first_token = |id: u64, last: u32| {
        *prompt.last_mut().unwrap() = last;
        let asked = Request { prompt: prompt.as_slice().into(), ..request(1, 1) };
        core.submit(id, asked, now).unwrap();
        let before = core.tally().first_token_seconds.sum();
        while core.tally().outcomes.answered < id {
            assert!(step(&mut core, &mut stub, now));
            now += 10 * MS;
        }
        core.tally().first_token_seconds.sum() - before
    };
    let (first, second) = (first_token(1, 7), first_token(2, 8));
    assert!((first - 0.170).abs() < 1e-9 && (second - 0.010).abs() < 1e-9, "{first} s, {second} s");
    assert!(second <= 0.15 * first);
}

/// Who has been answered finds the answer counted.
#[test]
fn the_meter_is_told_before_the_receiver() {
    let seen: Arc<Mutex<(CoreStats, Tally)>> = Arc::default();
    let meter = Arc::clone(&seen);
    let meter = move |stats: &CoreStats, tally: &Tally| *meter.lock().unwrap() = (*stats, tally.clone());
    let options = EngineOptions { meter: Some(Arc::new(meter)), ..options() };
    let stub = Stub::new(Shape { slots: 2, budget: 8, blocks: 40, depth: 2 });
    let engine = Engine::start(Box::new(stub), options).unwrap();
    // Also before there is anything to do.
    let idle = seen.lock().unwrap().0;
    assert_eq!((idle.slots, idle.kv.free), (2, 40));
    for n in 1..4 {
        let (send, receive) = mpsc::channel();
        let seen = Arc::clone(&seen);
        let sink = move |_: &RequestHandle, event: Event| {
            if matches!(event, Event::End(_)) {
                let now = seen.lock().unwrap().clone();
                send.send(now).unwrap();
            }
            Flow::Continue
        };
        engine.submit(request(9, 3), Box::new(sink));
        let (stats, tally) = receive.recv().unwrap();
        assert_eq!((tally.outcomes.answered, tally.generated_tokens), (n, 3 * n));
        assert_eq!((stats.running, stats.waiting, stats.kv.used), (0, 0, 0));
    }
    // As the engine ends, so do its numbers.
    drop(engine);
    assert_eq!(Arc::strong_count(&seen), 1);
}
