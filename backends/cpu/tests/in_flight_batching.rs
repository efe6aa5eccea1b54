//! The engine for many texts at a time over the CPU's executor: real models, few blocks, everybody in everybody's way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;

use support::checkpoints::{self, UNTIED};
use support::driver::Random;
use trireme_cpu::{CpuExecutor, ExecutorOptions, KvCapacity, LlamaModel, Options};
use trireme_llm::checkpoint::Checkpoint;
use trireme_llm::engine::{Core, EngineOptions, Event, Policy, Request, RequestError};
use trireme_llm::executor::{Executor, SlotSampling};
use trireme_llm::stop::StopRules;

const REQUESTS: usize = 64;

fn executor(model: &LlamaModel, blocks: usize, max_step_tokens: usize) -> CpuExecutor {
    let kv = KvCapacity::Tokens(blocks * 32);
    let options =
        ExecutorOptions { model: Options::default(), max_slots: 16, max_step_tokens, max_context: None, kv };
    CpuExecutor::new(model.clone(), options).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions::new(Arc::new(|| 0))
}

struct Asked {
    request: Request,
    at: u64,
    cancel: Option<u64>,
}

/// Requests of random lengths, some with the same beginning, some that end early.
fn asked(vocab: usize, longest: usize, tokens: usize) -> Vec<Asked> {
    let mut random = Random(4);
    let one = |_| {
        let (length, family) = (1 + random.below(longest), random.below(3) + 1);
        let prompt: Vec<u32> = (0..length).map(|i| ((i * 37 + family * 11) % vocab) as u32).collect();
        let stop = StopRules::new(&[(family * 7) as u32], 1 + random.below(tokens)).unwrap();
        let mut request = Request::new(prompt, stop);
        let temperature = if random.once_in(2) { 0.0 } else { 1.0 };
        request.ignore_eos = random.once_in(2);
        request.sampling = SlotSampling { temperature, seed: random.next(), ..SlotSampling::default() };
        request.priority = random.below(3) as u64;
        let at = random.below(40) as u64;
        Asked { request, at, cancel: random.once_in(5).then(|| at + random.below(20) as u64) }
    };
    (0..REQUESTS).map(one).collect()
}

/// Each request's tokens, `None` for one that was cancelled; and how many preemptions there were.
fn run(mut executor: CpuExecutor, options: EngineOptions, asked: &[Asked]) -> (Vec<Option<Vec<u32>>>, u64) {
    let mut core = Core::new(executor.info().clone(), options).unwrap();
    let mut tokens = vec![Vec::new(); asked.len()];
    let mut answers = vec![None; asked.len()];
    let mut ended = 0;
    let mut turn = 0;
    while ended < asked.len() {
        for (id, ask) in (0..).zip(asked) {
            if ask.at == turn {
                core.submit(id, ask.request.clone(), turn).unwrap();
            }
            if ask.cancel == Some(turn) {
                core.end(id, RequestError::Cancelled);
            }
        }
        if let Some(step) = core.plan(turn) {
            core.submitted(executor.submit(&step).unwrap());
            let output = executor.wait(core.oldest_step().unwrap()).unwrap();
            core.complete(output, turn);
        }
        for (id, event) in core.take_events() {
            match event {
                Event::Output(output) => tokens[id as usize].extend(output.tokens),
                Event::End(end) => {
                    ended += 1;
                    assert!(end.is_ok() || asked[id as usize].cancel.is_some(), "{end:?}");
                    answers[id as usize] = end.ok().map(|_| std::mem::take(&mut tokens[id as usize]));
                }
            }
        }
        turn += 1;
    }
    assert_eq!(core.stats().kv.used, 0);
    (answers, core.stats().preemptions)
}

fn alone(model: &LlamaModel, asked: &[Asked]) -> Vec<Vec<u32>> {
    let one = |ask: &Asked| {
        let ask = Asked { request: ask.request.clone(), at: 0, cancel: None };
        run(executor(model, 16, 512), options(), &[ask]).0.remove(0).unwrap()
    };
    asked.iter().map(one).collect()
}

/// Everything together in every way; gives the preemptions.
fn check(model: &LlamaModel, asked: &mut [Asked], ways: &[(bool, bool, bool)], blocks: usize) -> u64 {
    let expected = alone(model, asked);
    let mut preemptions = 0;
    for &(prefix_reuse, chunked_prefill, stream) in ways {
        for ask in &mut *asked {
            ask.request.stream = stream.then_some(NonZeroU32::MIN);
        }
        let options =
            EngineOptions { policy: Policy::MaxUtilization, prefix_reuse, chunked_prefill, ..options() };
        let (answers, preempted) = run(executor(model, blocks, 100), options, asked);
        preemptions += preempted;
        let whole = answers.iter().flatten().count();
        assert!(whole > REQUESTS / 2 && whole < REQUESTS, "{whole} were not cancelled");
        for (answer, expected) in answers.iter().zip(&expected) {
            assert!(answer.as_ref().is_none_or(|answer| answer == expected), "{answer:?} {expected:?}");
        }
    }
    preemptions
}

#[test]
fn sixty_four_requests_get_the_answers_that_they_get_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoint, _) = checkpoints::open(dir.path(), UNTIED, 3);
    let model = LlamaModel::load(&checkpoint, Options { threads: 2, ..Options::default() }).unwrap();
    let ways: Vec<_> = (0..8).map(|i| (i & 1 > 0, i & 2 > 0, i & 4 > 0)).collect();
    let preemptions = check(&model, &mut asked(101, 90, 60), &ways, 16);
    assert!(preemptions > 20, "{preemptions} preemptions");
}

#[test]
fn sixty_four_requests_of_smollm2() {
    let checkpoint = Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap();
    let model = LlamaModel::load(&checkpoint, Options { threads: 2, ..Options::default() }).unwrap();
    let preemptions = check(&model, &mut asked(49152, 60, 16), &[(true, true, true)], 8);
    assert!(preemptions > 0);
}

/// A prefix of a thousand tokens that was read before: the second request's first token comes in at most 15 % of the
/// time of the first one's.
#[test]
#[expect(clippy::disallowed_types, reason = "the time of real computing is measured")]
fn a_long_prefix_is_read_once() {
    use std::time::Instant;

    let checkpoint = Checkpoint::open(&support::cached(support::SMOLLM2)).unwrap();
    let model = LlamaModel::load(&checkpoint, Options { threads: 2, ..Options::default() }).unwrap();
    let mut executor = executor(&model, 80, 1024);
    let mut core = Core::new(executor.info().clone(), options()).unwrap();
    let mut first_token = |last: u32, id: u64| {
        let mut prompt: Vec<u32> = (0..1000).map(|i| (i * 37 + 5) % 49152).collect();
        prompt.extend([last; 20]);
        let start = Instant::now();
        core.submit(id, Request::new(prompt, StopRules::new(&[], 1).unwrap()), 0).unwrap();
        let step = core.plan(0).unwrap();
        core.submitted(executor.submit(&step).unwrap());
        let output = executor.wait(core.oldest_step().unwrap()).unwrap();
        core.complete(output, 0);
        assert!(core.is_idle());
        (step.rows(), start.elapsed())
    };
    let ((all, first), (rest, second)) = (first_token(7, 0), first_token(8, 1));
    println!("first token of 1020 tokens: {first:?}, with 992 of them there already: {second:?}");
    assert_eq!((all, rest), (1020, 28));
    assert!(second.as_secs_f64() <= 0.15 * first.as_secs_f64(), "{second:?} of {first:?}");
}
