//! Models and instances that come and go.

use std::time::Duration;

use super::{Verdict, pass};
use crate::case::Ask;
use crate::memory::{descriptors, resident, threads};
use crate::running::Bench;

/// How often a model is loaded and unloaded.
const RELOADS: usize = 100;
/// Reloads after which the process is looked at; by the first of them it should have what it needs.
const LOOKS: [usize; 3] = [20, 60, RELOADS];
/// What a reload may leave behind, in bytes, before it is called a leak.
const LEFT_BY_RELOAD: u64 = 16 << 10;
/// Models that are loaded at once.
const AT_ONCE: usize = 4;

pub(super) fn life_cycle_order(bench: &Bench<'_>) -> Verdict {
    let told = |what: &'static str| move |error: String| format!("{what}: {error}");
    let proposal = |_| bench.subject.complete_config(&bench.config.name, &bench.config.json);
    let [first, second] = [0, 1].map(proposal).map(|text| text.map_err(|error| error.to_string()));
    if first? != second? {
        return Err("complete_config proposes something else when it is asked again".to_owned());
    }
    drop(bench.load().map_err(told("a model without an instance"))?);
    // A load that is given up destroys an instance that was never drained.
    bench.start().and_then(|mut idle| idle.destroy()).map_err(told("an instance that never ran"))?;
    bench.start().and_then(|idle| idle.end()).map_err(told("an instance that was drained idle"))?;

    let case = bench.case()?;
    let model = bench.load()?;
    let first = bench.worker(&model, 0)?;
    let reply = bench.ask(&first, &Ask::new(&case)).map_err(told("the first request"))?;
    // To drain is not to end.
    first.drain()?;
    bench.ask(&first, &Ask::new(&case)).map_err(told("a request after drain"))?;
    // An instance is replaced while the model stays.
    first.end()?;
    let second = bench.worker(&model, 0).map_err(told("an instance after another"))?;
    let again =
        bench.ask(&second, &Ask::new(&case)).map_err(told("the first request of a second instance"))?;
    // A reload: the new model is there before the old one goes, which keeps answering until then.
    let reloaded = bench.load().map_err(told("the same model once more"))?;
    let third = bench.worker(&reloaded, 0)?;
    bench.ask(&second, &Ask::new(&case)).map_err(told("a request while the model is loaded again"))?;
    second.end()?;
    drop(model);
    bench.ask(&third, &Ask::new(&case)).map_err(told("a request after the old model has gone"))?;
    third.end()?;
    drop(reloaded);
    match crate::compare::difference(&reply.answers, &again.answers) {
        Some(difference) => pass(format!("two instances do not answer alike: {difference}")),
        None => pass(""),
    }
}

pub(super) fn thread_rules(bench: &Bench<'_>) -> Verdict {
    let case = bench.case()?;
    // Calls for different models may overlap, and each instance is made on its own thread.
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let case = &case;
                scope.spawn(move || {
                    let model = bench.load_as(&format!("{}_{number}", bench.config.name))?;
                    let worker = bench.worker(&model, 0)?;
                    for _ in 0..8 {
                        bench.ask(&worker, &Ask::new(case))?;
                    }
                    worker.end()
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a thread of the kit panicked".to_owned()))
        };
        running.into_iter().map(join).collect()
    });
    outcomes
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(|error| format!("{AT_ONCE} models at once: {error}"))?;
    if !bench.config.decoupled {
        return pass(format!("{AT_ONCE} models at once"));
    }
    // A reader that takes one answer at a time: the backend is told to pause after each.
    let worker = bench.start()?;
    let slow = Ask { capacity: 1, ..Ask::new(&case) };
    let told = |error: String| format!("with a slow reader: {error}");
    let pending = bench.submit(&worker, std::slice::from_ref(&slow)).map_err(told)?;
    pending[0].wait_for_first(bench.limit());
    // Time for a backend that does not wait to show it.
    std::thread::sleep(Duration::from_millis(50));
    let replies = pending[0].all(bench.limit()).map_err(told)?;
    bench.judge(&slow, &replies).map_err(told)?;
    worker.end()?;
    if replies.most > 2 {
        return Err(format!("{} answers were unread, although the backend was told to pause", replies.most));
    }
    pass(format!("{AT_ONCE} models at once; {} answers to a slow reader", replies.answers.len()))
}

pub(super) fn reloads(bench: &Bench<'_>) -> Verdict {
    let case = bench.case()?;
    let mut seen = Vec::new();
    for number in 0..RELOADS {
        let told = |error: String| format!("reload {}: {error}", number + 1);
        let worker = bench.start().map_err(told)?;
        bench.ask(&worker, &Ask::new(&case)).map_err(told)?;
        worker.end().map_err(told)?;
        if LOOKS.contains(&(number + 1)) {
            seen.push(settled());
        }
    }
    let [(early, files_before, threads_before), (middle, ..), (late, files, running)] = seen[..] else {
        return Err("the process was not looked at".to_owned());
    };
    let counted = RELOADS - LOOKS[0];
    if files > files_before + 2 {
        return Err(format!("{counted} reloads have left {} open files", files - files_before));
    }
    if running > threads_before + 2 {
        return Err(format!("{counted} reloads have left {} threads", running - threads_before));
    }
    // A leak goes on; an allocator that keeps a block or two more for another thread does so once.
    let halves = [middle.saturating_sub(early), late.saturating_sub(middle)];
    let grown = late.saturating_sub(early) >> 10;
    if halves.iter().all(|half| *half > LEFT_BY_RELOAD * (counted / 2) as u64 + (1 << 20)) {
        return Err(format!("{counted} reloads have left {grown} KiB of memory"));
    }
    pass(format!("{RELOADS} loads and unloads, {grown} KiB grown in the last {counted}"))
}

/// Memory, files and threads, when threads that have ended are gone.
pub(super) fn settled() -> (u64, usize, usize) {
    let mut seen = (resident(), descriptors(), threads());
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        let now = (resident(), descriptors(), threads());
        if (now.1, now.2) == (seen.1, seen.2) {
            return now;
        }
        seen = now;
    }
    seen
}
