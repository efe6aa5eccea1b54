//! The engine over an executor that shows what it really read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, mpsc};

use proptest::prelude::*;
use support::{Shape, Stub, VOCAB};
use trireme_llm::engine::{
    Core, Engine, EngineOptions, Event, Flow, Policy, Request, RequestError, RequestHandle,
};
use trireme_llm::executor::{
    Executor, ExecutorError, ExecutorInfo, SlotSampling, StepDiff, StepId, StepOutput,
};
use trireme_llm::profile::{AxisRange, Profile, ProfileSet};
use trireme_llm::stop::StopRules;

const EOS: u32 = 0;

#[derive(Clone, Debug)]
struct Asked {
    at: u64,
    request: Request,
    cancel: Option<u64>,
    pause: Option<(u64, u64)>,
}

#[derive(Default, Debug, PartialEq)]
struct Answer {
    tokens: BTreeMap<u32, Vec<u32>>,
    finished: BTreeMap<u32, trireme_llm::engine::Finish>,
    end: Option<Result<(), RequestError>>,
}

/// Runs a time-line, one turn a step; checks what holds for every one of them.
fn run(shape: Shape, options: EngineOptions, asked: &[Asked]) -> (Vec<Answer>, Core) {
    let mut stub = Stub::new(shape);
    let profiles = options.profiles.clone();
    let mut core = Core::new(stub.info.clone(), options).unwrap();
    let mut answers: Vec<Answer> = asked.iter().map(|_| Answer::default()).collect();
    let last = asked.iter().map(|a| a.at).max().unwrap_or(0);
    let mut turn = 0;
    while turn <= last || !core.is_idle() || core.steps_in_flight() > 0 {
        assert!(turn < last + 20_000, "somebody starves: {:?}", core.stats());
        for (id, ask) in asked.iter().enumerate() {
            if ask.at == turn {
                core.submit(id as u64, ask.request.clone(), turn).unwrap();
            }
            if ask.cancel == Some(turn) && answers[id].end.is_none() && ask.at <= turn {
                core.end(id as u64, RequestError::Cancelled);
            }
            match ask.pause {
                Some((from, _)) if from == turn => core.pause(id as u64, true),
                Some((_, to)) if to == turn => core.pause(id as u64, false),
                _ => {}
            }
        }
        while core.steps_in_flight() < shape.depth {
            let Some(step) = core.plan(turn) else { break };
            if let Some(bucket) = step.bucket {
                assert!(bucket.tokens as usize >= step.rows() && bucket.batch as usize >= step.slots());
            }
            assert_eq!(step.bucket.is_none(), profiles.is_empty());
            core.submitted(stub.submit(&step).unwrap());
        }
        if let Some(step) = core.oldest_step() {
            let output = stub.wait(step).unwrap();
            core.complete(output, turn);
        }
        for (id, event) in core.take_events() {
            let answer = &mut answers[id as usize];
            assert_eq!(answer.end, None, "nothing comes after the end");
            match event {
                Event::Output(output) => {
                    assert!(!answer.finished.contains_key(&output.index));
                    answer.tokens.entry(output.index).or_default().extend(output.tokens);
                    answer.finished.extend(output.finish.map(|finish| (output.index, finish)));
                }
                Event::End(end) => answer.end = Some(end.map(|_| ())),
            }
        }
        turn += 1;
    }
    assert_eq!(core.stats().kv.used, 0, "blocks are held by nobody");
    assert_eq!((core.stats().running, core.stats().waiting), (0, 0));
    (answers, core)
}

fn options() -> EngineOptions {
    EngineOptions::new(Arc::new(|| 0))
}

fn alone(request: &Request) -> Answer {
    let shape = Shape { slots: 8, budget: 64, blocks: 200, depth: 1 };
    let request = Request { deadline_ns: None, ..request.clone() };
    let ask = Asked { at: 0, request, cancel: None, pause: None };
    run(shape, options(), &[ask]).0.remove(0)
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request::new(prompt, StopRules::new(&[EOS], max_tokens).unwrap())
}

prop_compose! {
    fn requests()(
        // Few different beginnings, so that blocks are found again.
        family in 1u32..4, prompt in 1usize..30, tail in 0u32..3, max_tokens in 1usize..24, n in prop_oneof![4 => Just(1u32), 1 => 2u32..4],
        temperature in prop_oneof![Just(0f32), Just(1.0)], seed in 0u64..50, penalty in prop_oneof![Just(0f32), Just(0.5)],
        min_tokens in 0u32..4, ignore_eos: bool, priority in prop_oneof![3 => Just(0u64), 1 => 1u64..3],
        deadline in prop::option::weighted(0.1, 1u64..200), stream in prop::option::of(1u32..5),
        bad in prop::collection::vec(prop::collection::vec(1..VOCAB as u32, 1..3), 0..4),
        stop_word in prop::option::weighted(0.2, prop::collection::vec(1..VOCAB as u32, 1..3)),
        at in 0u64..60, cancel in prop::option::weighted(0.2, 0u64..100), pause in prop::option::weighted(0.1, (0u64..60, 61u64..120)),
    ) -> Asked {
        let mut tokens: Vec<u32> = (0..prompt as u32).map(|i| (i * family) % (VOCAB as u32 - 1) + 1).collect();
        *tokens.last_mut().unwrap() = tail + 1;
        let mut request = request(tokens, max_tokens);
        request.sampling = SlotSampling { temperature, seed, presence_penalty: penalty, min_tokens, ..SlotSampling::default() };
        (request.n, request.ignore_eos, request.priority, request.deadline_ns) = (n, ignore_eos, priority, deadline.map(|d| at + d));
        request.stream = stream.and_then(NonZeroU32::new);
        request.bad_words = bad;
        request.stop = request.stop.with_words(stop_word.as_slice()).unwrap();
        Asked { at, request, cancel, pause }
    }
}

fn cases() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 3_000;
    }
    config
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever comes when, is cancelled, paused, late, preempted or shared: every request ends once, every answer that
    /// ends is the one that it gets alone, every unfinished one a beginning of it, and no block stays held.
    #[test]
    fn each_answer_is_its_answer_alone(
        asked in prop::collection::vec(requests(), 1..14),
        slots in 1usize..8, budget in 1usize..40, blocks in 12usize..40, depth in 1usize..3,
        evict: bool, prefix_reuse: bool, chunked_prefill: bool, profile: bool,
    ) {
        let policy = if evict { Policy::MaxUtilization } else { Policy::GuaranteedNoEvict };
        let axis = |max: usize| AxisRange { min: 1, opt: 1, max: max as u32 };
        let profile = Profile { tokens: axis(budget), batch: axis(slots) };
        let profiles = ProfileSet::new(if profile_on(profile, budget) && profile.batch.max > 1 { std::slice::from_ref(&profile) } else { &[] }).unwrap();
        let options = EngineOptions { policy, prefix_reuse, chunked_prefill, profiles, ..options() };
        let shape = Shape { slots, budget, blocks, depth };
        let (answers, core) = run(shape, options, &asked);
        if policy == Policy::GuaranteedNoEvict && asked.iter().all(|ask| ask.pause.is_none()) {
            prop_assert_eq!(core.stats().preemptions, 0);
        }
        for (ask, answer) in asked.iter().zip(&answers) {
            let alone = alone(&ask.request);
            match answer.end.as_ref().unwrap() {
                Ok(()) => {
                    prop_assert_eq!(answer, &alone);
                    for tokens in answer.tokens.values() {
                        let text = [&*ask.request.prompt, tokens].concat();
                        let from = ask.request.prompt.len();
                        for word in &ask.request.bad_words {
                            let ends = |end: usize| end > from && text[..end].ends_with(word);
                            prop_assert!(!(from..=text.len()).any(ends), "{:?} in {:?}", word, text);
                        }
                    }
                }
                Err(error) => {
                    let cancelled = *error == RequestError::Cancelled && ask.cancel.is_some();
                    let late = *error == RequestError::Deadline && ask.request.deadline_ns.is_some();
                    prop_assert!(cancelled || late, "{error}");
                    for (index, tokens) in &answer.tokens {
                        prop_assert!(alone.tokens[index].starts_with(tokens));
                    }
                }
            }
        }
    }
}

fn profile_on(profile: Profile, budget: usize) -> bool {
    profile.tokens.max as usize == budget && budget.is_multiple_of(2)
}

#[test]
fn a_prompt_that_is_there_is_not_read_again() {
    let shape = Shape { slots: 4, budget: 64, blocks: 40, depth: 1 };
    let ask = |at| Asked { at, request: request((1..=32).collect(), 2), cancel: None, pause: None };
    let (answers, core) = run(shape, options(), &[ask(0), ask(9)]);
    assert_eq!(answers[0], answers[1]);
    // The last block is read again, since its last token gives the answer.
    assert_eq!((core.stats().kv.reused, core.stats().kv.cached), (7, 8));
}

#[test]
fn blocks_of_a_cancelled_request_are_free_at_once() {
    let stub = Stub::new(Shape { slots: 4, budget: 64, blocks: 40, depth: 2 });
    let mut core = Core::new(stub.info.clone(), options()).unwrap();
    core.submit(0, request((1..=20).collect(), 9), 0).unwrap();
    let step = core.plan(0).unwrap();
    assert_eq!((core.stats().kv.used, step.rows()), (5, 20));
    core.end(0, RequestError::Cancelled);
    assert_eq!(core.stats().kv.used, 0);
}

#[test]
fn what_can_never_fit_is_refused_with_the_limit() {
    let stub = Stub::new(Shape { slots: 4, budget: 64, blocks: 5, depth: 1 });
    let mut core = Core::new(stub.info.clone(), options()).unwrap();
    let error = |core: &mut Core, r| core.submit(0, r, 0).unwrap_err().to_string();
    assert_eq!(
        error(&mut core, request(vec![1; 20], 9)),
        "the prompt has 20 tokens, there is room for 20 with the answer"
    );
    assert_eq!(error(&mut core, request(vec![], 9)), "the prompt has no tokens");
    assert_eq!(error(&mut core, request(vec![40], 9)), "token id 40 is outside the vocabulary of 40");
    let mut core = Core::new(stub.info.clone(), EngineOptions { max_waiting: 1, ..options() }).unwrap();
    // Four come before the first step and have places, one waits for them.
    (0..5).for_each(|id| core.submit(id, request(vec![1], 1), 0).unwrap());
    assert_eq!(
        error(&mut core, request(vec![1], 1)),
        "1 requests are waiting, the limit is 1: try again later"
    );
}

/// Few blocks: somebody is preempted, again and again, and still answers as alone.
#[test]
fn preempted_answers_are_computed_again() {
    let shape = Shape { slots: 6, budget: 24, blocks: 12, depth: 2 };
    let ask = |i: u32| {
        let mut request = request(vec![i + 1; 3], 24);
        request.ignore_eos = true;
        Asked { at: 0, request, cancel: None, pause: None }
    };
    let asked: Vec<Asked> = (0..9).map(ask).collect();
    let options = EngineOptions { policy: Policy::MaxUtilization, ..options() };
    let (answers, core) = run(shape, options, &asked);
    assert!(core.stats().preemptions > 4, "{:?}", core.stats());
    assert!(asked.iter().zip(&answers).all(|(ask, answer)| *answer == alone(&ask.request)));
}

/// Sends what comes to a channel.
fn channel() -> (impl FnMut(&RequestHandle, Event) -> Flow + Send, mpsc::Receiver<Event>) {
    let (send, receive) = mpsc::channel();
    let sink = move |_: &RequestHandle, event| match send.send(event) {
        Ok(()) => Flow::Continue,
        Err(_) => Flow::Stop,
    };
    (sink, receive)
}

fn collect(events: impl IntoIterator<Item = Event>) -> Answer {
    let mut answer = Answer::default();
    for event in events {
        match event {
            Event::Output(output) => {
                answer.tokens.entry(output.index).or_default().extend(output.tokens);
                answer.finished.extend(output.finish.map(|finish| (output.index, finish)));
            }
            Event::End(end) => answer.end = Some(end.map(|_| ())),
        }
    }
    answer
}

/// Sixty-four requests from several threads, on few blocks, with two steps in flight.
#[test]
fn the_thread_answers_everybody() {
    let shape = Shape { slots: 6, budget: 24, blocks: 20, depth: 2 };
    let options = EngineOptions { policy: Policy::MaxUtilization, ..options() };
    let engine = Engine::start(Box::new(Stub::new(shape)), options).unwrap();
    let ask = |i: u32| {
        let mut request = request((1..=i % 20 + 1).collect(), 20);
        request.sampling = SlotSampling { temperature: 1.0, seed: i.into(), ..SlotSampling::default() };
        (request.ignore_eos, request.stream) = (true, NonZeroU32::new(i % 4));
        request
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                let receivers: Vec<_> = (0..16)
                    .map(|i| {
                        let (sink, events) = channel();
                        let request = ask(thread * 16 + i);
                        let handle = engine.submit(request.clone(), Box::new(sink));
                        if i % 5 == 4 {
                            handle.cancel();
                        }
                        (request, events, i % 5 == 4)
                    })
                    .collect();
                for (request, events, cancelled) in receivers {
                    let answer = collect(events);
                    match answer.end {
                        Some(Err(RequestError::Cancelled)) => assert!(cancelled),
                        _ => assert_eq!(answer, alone(&request)),
                    }
                }
            });
        }
    });
    engine.drain();
    assert_eq!((engine.stats().kv.used, engine.stats().running, engine.stats().waiting), (0, 0, 0));
}

#[test]
fn a_paused_answer_goes_on_when_it_is_resumed() {
    let shape = Shape { slots: 2, budget: 24, blocks: 20, depth: 1 };
    let engine = Engine::start(Box::new(Stub::new(shape)), options()).unwrap();
    let (send, receive) = mpsc::channel();
    let sink = move |_: &RequestHandle, event| {
        send.send(event).unwrap();
        Flow::Pause
    };
    let request = Request { stream: NonZeroU32::new(1), ignore_eos: true, ..request(vec![3], 5) };
    let handle = engine.submit(request.clone(), Box::new(sink));
    let mut events = vec![receive.recv().unwrap()];
    // Another one is answered meanwhile, and the paused one says no more.
    let (other, answered) = channel();
    engine.submit(request.clone(), Box::new(other));
    assert_eq!(collect(answered), alone(&request));
    assert!(receive.try_recv().is_err());
    while !matches!(events.last(), Some(Event::End(_))) {
        handle.resume();
        events.push(receive.recv().unwrap());
    }
    assert_eq!(collect(events), alone(&request));
}

/// A reader that is behind holds nobody up: what it has is given to others, and computed again when it goes on.
#[test]
fn whoever_does_not_read_gives_way_under_both_policies() {
    for policy in [Policy::GuaranteedNoEvict, Policy::MaxUtilization] {
        // Room for one of them.
        let stub = Stub::new(Shape { slots: 4, budget: 24, blocks: 7, depth: 1 });
        let engine = Engine::start(Box::new(stub), EngineOptions { policy, ..options() }).unwrap();
        let (send, receive) = mpsc::channel();
        let sink = move |_: &RequestHandle, event| {
            send.send(event).unwrap();
            Flow::Pause
        };
        let asked =
            |token| Request { stream: NonZeroU32::new(1), ignore_eos: true, ..request(vec![token; 5], 20) };
        let slow = engine.submit(asked(3), Box::new(sink));
        let mut events = vec![receive.recv().unwrap()];
        for token in 4..9 {
            let (other, answered) = channel();
            engine.submit(asked(token), Box::new(other));
            assert_eq!(collect(answered), alone(&asked(token)), "{policy:?}");
        }
        assert!(engine.stats().preemptions > 0);
        while !matches!(events.last(), Some(Event::End(_))) {
            slow.resume();
            events.push(receive.recv().unwrap());
        }
        assert_eq!(collect(events), alone(&asked(3)), "{policy:?}");
    }
}

/// Breaks at its third step.
struct Broken(Stub, Break);

#[derive(Clone, Copy, PartialEq)]
enum Break {
    Fails,
    Panics,
    LosesItsDevice,
}

impl Executor for Broken {
    fn info(&self) -> &ExecutorInfo {
        self.0.info()
    }
    fn submit(&mut self, step: &StepDiff) -> Result<StepId, ExecutorError> {
        if self.0.next < 2 {
            return self.0.submit(step);
        }
        let why = "the device is gone".to_owned();
        match self.1 {
            Break::Fails => Err(ExecutorError::Fatal(why)),
            Break::Panics => panic!("{why}"),
            Break::LosesItsDevice => Err(ExecutorError::DeviceLost(why)),
        }
    }
    fn poll(&mut self, id: StepId) -> Result<Option<StepOutput>, ExecutorError> {
        self.0.poll(id)
    }
    fn wait(&mut self, id: StepId) -> Result<StepOutput, ExecutorError> {
        self.0.wait(id)
    }
}

#[test]
fn an_executor_that_fails_loses_no_request() {
    for how in [Break::Fails, Break::Panics, Break::LosesItsDevice] {
        let stub = Stub::new(Shape { slots: 2, budget: 24, blocks: 20, depth: 1 });
        let told = Arc::new(Mutex::new(Vec::new()));
        let alarm = Arc::clone(&told);
        let device_lost = Arc::new(move |why: &str| alarm.lock().unwrap().push(why.to_owned()));
        let options = EngineOptions { device_lost: Some(device_lost), ..options() };
        let engine = Engine::start(Box::new(Broken(stub, how)), options).unwrap();
        for _ in 0..3 {
            let (sink, events) = channel();
            engine.submit(Request { ignore_eos: true, ..request(vec![3], 9) }, Box::new(sink));
            let end = collect(events).end.unwrap().unwrap_err().to_string();
            assert!(end.starts_with("the engine does not run any more: the executor "), "{end}");
            // The server hears of it once, and before any client does.
            let lost = how == Break::LosesItsDevice;
            assert_eq!(told.lock().unwrap().len(), usize::from(lost));
            assert_eq!(engine.failure().unwrap().device_lost, lost);
        }
        assert_eq!(engine.stats().kv.used, 0);
    }
}

#[test]
fn an_engine_that_is_dropped_answers_what_it_holds() {
    let stub = Stub::new(Shape { slots: 2, budget: 24, blocks: 20, depth: 1 });
    let engine = Engine::start(Box::new(stub), options()).unwrap();
    let (send, receive) = mpsc::channel();
    let sink = move |_: &RequestHandle, event| {
        send.send(event).unwrap();
        Flow::Pause
    };
    let request = Request { stream: NonZeroU32::new(1), ignore_eos: true, ..request(vec![3], 5) };
    engine.submit(request, Box::new(sink));
    assert!(matches!(receive.recv().unwrap(), Event::Output(_)));
    drop(engine);
    let end = collect(receive).end.unwrap().unwrap_err().to_string();
    assert_eq!(end, "the engine does not run any more: it was shut down");
}

#[test]
fn a_stop_word_ends_an_answer_and_is_part_of_it() {
    let plain = Request { ignore_eos: true, ..request(vec![3], 12) };
    let whole = alone(&plain).tokens[&0].clone();
    let word = whole[4..6].to_vec();
    let at = (1..=whole.len()).find(|end| whole[..*end].ends_with(&word)).unwrap();
    let stop = StopRules::new(&[], 12).unwrap().with_words(&[vec![], word]).unwrap();
    let answer = alone(&Request { stop, ..plain });
    assert_eq!(answer.tokens[&0], whole[..at]);
    assert_eq!(answer.finished[&0].reason, trireme_llm::stop::FinishReason::StopToken);
}
