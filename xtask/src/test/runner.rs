//! Runs one program of a tier: its lines pass through, its summaries are counted, its time ends at the tier's cap.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::Findings;
use super::counts::{Counts, Runner};
use crate::process::not_started;
use crate::stopwatch::{Stopwatch, pause};

/// The time left to a tier.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) watch: Stopwatch,
    pub(crate) cap: u64,
}

impl Budget {
    fn spent(self) -> bool {
        self.watch.elapsed() > Duration::from_secs(self.cap)
    }
}

/// A step whose success is its exit status.
pub(crate) fn step(findings: &mut Findings, budget: Budget, command: &mut Command, what: &str) -> bool {
    println!("  {what}");
    let outcome = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| not_started(command, &error))
        .and_then(|mut child| wait(&mut child, budget));
    settle(findings, outcome, what)
}

/// A step that runs tests; what its summaries say is added to the findings.
pub(crate) fn tests(
    findings: &mut Findings,
    budget: Budget,
    runner: Runner,
    command: &mut Command,
    what: &str,
) -> bool {
    println!("  {what}");
    let counts = Mutex::new(Counts::default());
    let outcome = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(command, &error))
        .and_then(|mut child| {
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            thread::scope(|scope| {
                scope.spawn(|| pass_on(stdout, &mut std::io::stdout(), runner, &counts));
                scope.spawn(|| pass_on(stderr, &mut std::io::stderr(), runner, &counts));
                wait(&mut child, budget)
            })
        });
    findings.counts += counts.into_inner().unwrap_or_default();
    settle(findings, outcome, what)
}

fn settle(findings: &mut Findings, outcome: Result<ExitStatus>, what: &str) -> bool {
    match outcome {
        Ok(status) if status.success() => return true,
        Ok(status) => findings.broken.push(format!("{what} ({status})")),
        Err(error) => findings.broken.push(format!("{what}: {error:#}")),
    }
    false
}

/// Waits for the end; at the cap the child is asked to stop (nextest and cargo end their own children then).
fn wait(child: &mut Child, budget: Budget) -> Result<ExitStatus> {
    let mut asked: Option<Stopwatch> = None;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            return Ok(status);
        }
        match asked {
            None if budget.spent() => {
                eprintln!("  over the cap of {} s: stopping it", budget.cap);
                if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                    // It may have ended just now; then the next wait says so.
                    let _ = kill_process(pid, Signal::TERM);
                }
                asked = Some(Stopwatch::start());
            }
            Some(since) if since.elapsed() > Duration::from_secs(20) => {
                child.kill().context("cannot stop it")?
            }
            _ => {}
        }
        pause(20);
    }
}

fn pass_on(from: Option<impl Read>, to: &mut dyn Write, runner: Runner, counts: &Mutex<Counts>) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // A closed terminal must not end the tests.
        let _ = to.write_all(&line);
        if let Some(found) = runner.summary(&String::from_utf8_lossy(&line))
            && let Ok(mut counts) = counts.lock()
        {
            *counts += found;
        }
        line.clear();
    }
}
