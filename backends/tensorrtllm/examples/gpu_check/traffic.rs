//! Whole loads through the engine's own scheduler, in this process: many requests at once, end-of-text ignored, no
//! prefix reuse.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use trireme_llm::checkpoint::WeightType;
use trireme_llm::engine::{Engine, EngineOptions, Event, Flow, Policy, Request, RequestHandle};
use trireme_llm::stop::StopRules;
use trireme_tensorrtllm::{CudaExecutor, Options, Source};

use crate::Outcome;
use crate::random::Random;
use crate::shapes::llama_8b;

/// Requests, tokens of each prompt and of each answer.
const LOADS: [(usize, usize, usize, usize); 3] =
    [(128, 32, 512, 256), (2000, 128, 128, 512), (600, 1000, 1000, 512)];

pub(crate) fn run() -> Outcome {
    println!(
        "| requests | prompt | answer | slots | seconds | output tokens/s | first token p50, p99 ms |\n|---|---|---|---|---|---|---|"
    );
    let mut config = llama_8b();
    config.max_position_embeddings = 16_384;
    for (count, prompt, answer, slots) in LOADS {
        let options = Options { max_slots: slots, max_kv_tokens: Some(440_000), ..Options::default() };
        let executor = CudaExecutor::load(&config, &Source::Dummy(WeightType::BF16), &options)?;
        let start = Instant::now();
        let clock = Arc::new(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(0));
        let options = EngineOptions {
            prefix_reuse: false,
            policy: Policy::MaxUtilization,
            ..EngineOptions::new(clock)
        };
        let engine = Engine::start(Box::new(executor), options)?;
        let mut random = Random(9);
        let (sender, receiver) = mpsc::channel();
        let mut ask = |answer: usize| {
            let ids: Vec<u32> = (0..prompt).map(|_| random.below(128_000) as u32).collect();
            let stop = StopRules::new(&[], answer).expect("a length");
            let request = Request { ignore_eos: true, ..Request::new(ids, stop) };
            let sender = sender.clone();
            engine.submit(
                request,
                Box::new(move |_: &RequestHandle, event: Event| {
                    if let Event::End(end) = event {
                        let _ = sender.send(end);
                    }
                    Flow::Continue
                }),
            );
        };
        // Graphs and algorithms of the sizes that come.
        (0..slots.min(count)).for_each(|_| ask(8));
        (0..slots.min(count))
            .try_for_each(|_| receiver.recv()?.map(drop).map_err(Box::<dyn std::error::Error>::from))?;
        let began = start.elapsed();
        (0..count).for_each(|_| ask(answer));
        let mut first = Vec::new();
        let mut tokens = 0;
        for _ in 0..count {
            let usage = receiver.recv()??;
            tokens += usage.completion_tokens;
            first.push((usage.first_token_ns - usage.arrival_ns) as f64 / 1e6);
        }
        let seconds = (start.elapsed() - began).as_secs_f64();
        first.sort_by(f64::total_cmp);
        println!(
            "| {count} | {prompt} | {answer} | {slots} | {seconds:.2} | {:.0} | {:.0}, {:.0} |",
            tokens as f64 / seconds,
            first[count / 2],
            first[count * 99 / 100]
        );
    }
    Ok(())
}
