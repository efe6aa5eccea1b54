//! The loop: reads lines, keeps so many calls in the core that its engines are full, writes answers in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use trireme_http::{OpenAiAnswer, openai_call};
use trireme_runtime::Core;

use super::DeviceLost;
use super::call::{Call, answered, refused};
use super::input::{Line, Lines};
use super::models::Models;
use super::output::Output;
use super::progress::Progress;
use crate::cli::Batch;
use crate::leave::SAME_SIGNAL;
use crate::signals::Signals;

/// Lines that may be under way or wait for one before them, as a multiple of the calls at a time.
const AHEAD: usize = 64;
/// Bytes of answers that may wait for one before them.
const AHEAD_BYTES: usize = 256 << 20;
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two times that the disk is asked to keep what it has.
const TICKS_TO_DISK: u32 = 20;
/// How long a model may refuse a call for want of room before the run ends.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What is to be done.
pub(super) struct Plan<'a> {
    /// Lines that an earlier run has answered.
    pub(super) done: u64,
    /// Lines that are still to be read.
    pub(super) rest: u64,
    pub(super) flags: &'a Batch,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Complete,
    /// By a signal; what was under way has been waited for.
    Told,
    ToldTwice,
}

/// A line of the output, and what is counted of it.
pub(super) struct Answered {
    line: String,
    pub(super) failed: bool,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// The model that the line names is not here: what the answer says.
    no_model: Option<String>,
}

pub(super) async fn run(
    models: &Models,
    mut input: Lines,
    mut output: Output,
    plan: Plan<'_>,
) -> anyhow::Result<Ended> {
    let concurrency = plan.flags.concurrency.unwrap_or_else(|| models.concurrency()).max(1);
    let calls = Arc::new(Semaphore::new(concurrency));
    let ahead = Arc::new(AtomicUsize::new(0));
    let mut progress = Progress::start(plan.done, plan.rest, concurrency);
    let mut pending: VecDeque<JoinHandle<anyhow::Result<Answered>>> = VecDeque::new();
    let mut signals = Signals::listen().context("no signals")?;
    signals.serving();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut to_disk = 0;
    let (mut more, mut written) = (true, 0u64);
    let (mut told, mut give_up): (Option<Instant>, Option<Instant>) = (None, None);
    let ended = loop {
        if pending.is_empty() && (!more || give_up.is_some()) {
            break if more { Ended::Told } else { Ended::Complete };
        }
        let room = more
            && give_up.is_none()
            && pending.len() < concurrency.saturating_mul(AHEAD)
            && ahead.load(Relaxed) < AHEAD_BYTES;
        tokio::select! {
            first = next_of(&mut pending), if !pending.is_empty() => {
                let mut first = first;
                while let Some(answered) = first {
                    let answered = answered?;
                    if let Some(why) = answered.no_model.as_ref().filter(|_| plan.done + written == 0) {
                        bail!("{}: {why} (--model-name gives a checkpoint the name that the lines have)", input.path().display());
                    }
                    ahead.fetch_sub(answered.line.len(), Relaxed);
                    output.write(&answered.line)?;
                    written += 1;
                    progress.count(&answered);
                    first = match pending.front() {
                        Some(next) if next.is_finished() => next_of(&mut pending).await,
                        _ => None,
                    };
                }
                output.flush()?;
            }
            permit = Arc::clone(&calls).acquire_owned(), if room => {
                let permit = permit.context("no more calls")?;
                match input.next()? {
                    None => more = false,
                    Some(line) => {
                        let (core, ahead) = (Arc::clone(&models.core), Arc::clone(&ahead));
                        pending.push_back(tokio::spawn(async move {
                            let answered = answer(&core, &line).await?;
                            ahead.fetch_add(answered.line.len(), Relaxed);
                            drop(permit);
                            Ok(answered)
                        }));
                    }
                }
            }
            _ = ticks.tick() => {
                progress.show(pending.len());
                to_disk += 1;
                if to_disk >= TICKS_TO_DISK {
                    to_disk = 0;
                    let disk = output.disk()?;
                    // What is not there yet is there the next time: a kill of this process does not need it.
                    drop(tokio::task::spawn_blocking(move || disk.sync_data()));
                }
            }
            _ = signals.next() => match told {
                None => {
                    let seconds = plan.flags.exit_timeout_secs;
                    progress.say(&format!("told to end: waiting for {} lines, at most {seconds} s", pending.len()));
                    told = Some(Instant::now());
                    give_up = Some(Instant::now() + Duration::from_secs(seconds));
                }
                // Wrappers pass on what the process has got by itself.
                Some(first) if first.elapsed() < SAME_SIGNAL => {}
                Some(_) => break Ended::ToldTwice,
            },
            fault = models.core.device_lost() => return Err(DeviceLost(fault).into()),
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => break Ended::Told,
        }
    };
    // What is dropped here is cancelled.
    pending.drain(..).for_each(|task| task.abort());
    output.flush()?;
    output.disk()?.sync_all().with_context(|| format!("cannot write '{}'", output.path().display()))?;
    progress.end(ended, output.path());
    Ok(ended)
}

/// The answer of the first line that is under way.
async fn next_of(
    pending: &mut VecDeque<JoinHandle<anyhow::Result<Answered>>>,
) -> Option<anyhow::Result<Answered>> {
    let answered = pending.front_mut()?.await;
    pending.pop_front();
    Some(answered.unwrap_or_else(|error| Err(anyhow::anyhow!("a call ended without a result: {error}"))))
}

async fn answer(core: &Core, line: &Line) -> anyhow::Result<Answered> {
    let call = match Call::read(line) {
        Ok(call) => call,
        Err(unusable) => {
            let line = refused(line.number, &unusable);
            return Ok(Answered {
                line,
                failed: true,
                prompt_tokens: 0,
                completion_tokens: 0,
                no_model: None,
            });
        }
    };
    let id = format!("batch-{}", line.number);
    let answer = ask(core, line.number, &call, &id).await?;
    let told: Told = serde_json::from_str(&answer.body).unwrap_or_default();
    let missing = told.error.as_ref().is_some_and(|error| error.code.as_deref() == Some("model_not_found"));
    let usage = told.usage.unwrap_or_default();
    Ok(Answered {
        line: answered(line.number, &call.custom_id, &id, &answer),
        failed: answer.status >= 400,
        prompt_tokens: usage.prompt_tokens.unwrap_or(0),
        completion_tokens: usage.completion_tokens.unwrap_or(0),
        no_model: told.error.and_then(|error| error.message).filter(|_| missing),
    })
}

/// Asks until there is room.
async fn ask(core: &Core, number: u64, call: &Call, id: &str) -> anyhow::Result<OpenAiAnswer> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = openai_call(core, &call.url, id.to_owned(), call.body.clone()).await;
        // It fails with the device, not by itself, and has no answer yet.
        if let (true, Some(fault)) = (answer.status >= 500, core.device_fault()) {
            return Err(DeviceLost(fault).into());
        }
        if !matches!(answer.status, 429 | 503) {
            return Ok(answer);
        }
        if begun.elapsed() > PATIENCE {
            let told: Told = serde_json::from_str(&answer.body).unwrap_or_default();
            let why = told.error.and_then(|error| error.message).unwrap_or(answer.body);
            let seconds = PATIENCE.as_secs();
            bail!(
                "line {number} was refused for {seconds} s: {why}; the lines before it are answered, the same command goes on"
            );
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What is looked at in an answer.
#[derive(Default, Deserialize)]
struct Told {
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<ToldError>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ToldError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}
