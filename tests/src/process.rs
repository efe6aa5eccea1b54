//! Children that never outlive their time.

use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a command to its end; its output goes where the test's goes.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `limit`, after which it is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let what = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("cannot start {what}"))?;
    let status = wait(&mut child, limit).with_context(|| what.clone())?;
    if !status.success() {
        bail!("{what} ended with {status}");
    }
    Ok(())
}

/// Waits for the end of a child.
///
/// # Errors
/// It takes longer than `limit`, after which it is killed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let (done, late) = mpsc::channel::<()>();
    let start = Instant::now();
    // The standard library cannot wait for a child with a limit.
    let guard = thread::spawn(move || {
        if late.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let status = child.wait();
    drop(done);
    let _ = guard.join();
    let status = status?;
    if !status.success() && start.elapsed() >= limit {
        bail!("was killed after {limit:?}");
    }
    Ok(status)
}

/// Asks a child to end.
///
/// # Errors
/// There is no such child any more.
pub fn terminate(child: &Child) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), Signal::TERM)?)
}
