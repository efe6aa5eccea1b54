//! The way out: from the signal to the last answer.
//!
//! ```text
//! SIGTERM        half of --drain-delay        --drain-delay            a moment more       all is answered
//!    │ not ready;        │ answers of HTTP/1         │ GOAWAY;                  │ what is asked     │
//!    │ all is served     │ end their connections     │ all is served            │ now is refused    │ exit 0
//! ```
//! Clients that keep a connection through a balancer of plain TCP stay where they are until they are told. They are told
//! while new connections are still taken, and after the balancer has had the time to look elsewhere. Connections are
//! taken as long as something runs, so that who comes is told what goes on, and sequences can be brought to their end.
//!
//! A device that is lost to this process begins the same way, by itself, and ends with a code of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use trireme_drain::{Debts, Stage};
use trireme_runtime::Core;

use crate::signals::{End, Signals};

/// The drain took longer than `--exit-timeout-secs`.
const EXIT_DRAIN_TIMEOUT: u8 = 3;
/// A device is lost to this process, whatever else came of the end.
pub(crate) const EXIT_DEVICE_LOST: u8 = 70;
/// Somebody did not want to wait for it.
const EXIT_SECOND_SIGNAL: u8 = 4;

/// How long connections on which nothing is owed have to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
/// The shortest exit timeout.
const A_MOMENT: Duration = Duration::from_secs(1);
/// For how long requests are served that were on their way when their connection was told to end.
const LAST_CALLS: Duration = Duration::from_millis(400);
/// A signal that comes twice within this time counts once: wrappers pass on what the process has got by itself.
pub(crate) const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// How long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// `--drain-delay`.
    pub(crate) delay: Duration,
    /// `--exit-timeout-secs`.
    pub(crate) timeout: Duration,
}

/// What runs, and how to end it.
pub(crate) struct Running<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) debts: Debts,
    /// The local ports on which answers leave.
    pub(crate) ports: Vec<u16>,
    /// The front ends.
    pub(crate) tasks: JoinSet<std::io::Result<()>>,
    /// Tells them how far the end has come.
    pub(crate) stop: watch::Sender<Stage>,
}

/// Ends the server, and says how that went.
pub(crate) async fn leave(running: Running<'_>, end: End, times: Times, signals: &mut Signals) -> ExitCode {
    running.core.begin_leave();
    let core = Arc::clone(running.core);
    let delay = if end == End::Interrupt { Duration::ZERO } else { times.delay };
    let code = tokio::select! {
        code = in_order(running, delay, times.timeout) => code,
        () = second(signals, end) => {
            tracing::error!("a second signal: ending now, whatever is still running");
            ExitCode::from(EXIT_SECOND_SIGNAL)
        }
    };
    // Also if it was lost on the way out: who reads the code learns that not everything was answered well.
    match core.device_fault() {
        Some(fault) => {
            tracing::error!("ending with {EXIT_DEVICE_LOST}, since a device is lost: {fault}");
            ExitCode::from(EXIT_DEVICE_LOST)
        }
        None => code,
    }
}

/// Returns when a signal comes that wants the end now. One that tells a server to end which ends by itself is the first.
async fn second(signals: &mut Signals, end: End) {
    if end == End::DeviceLost {
        signals.next().await;
    }
    let _ = timeout(SAME_SIGNAL, async {
        loop {
            signals.next().await;
        }
    })
    .await;
    signals.next().await;
}

async fn in_order(mut running: Running<'_>, delay: Duration, exit_timeout: Duration) -> ExitCode {
    if !delay.is_zero() {
        tracing::info!("not ready any more; requests are taken for {} s", delay.as_secs());
        sleep(delay / 2).await;
        running.debts.begin_farewell();
        sleep(delay / 2).await;
    }
    tracing::info!("draining, at most {} s", exit_timeout.as_secs());
    // A server on which nothing runs needs a moment all the same.
    let exit_timeout = exit_timeout.max(A_MOMENT);
    match timeout(exit_timeout + GOODBYE, drain(&mut running, exit_timeout)).await {
        Ok(true) => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
        _ => {
            if running.debts.count() > 0 {
                tracing::error!("answers are lost that their clients have not read");
            }
            tracing::error!("Exit timeout expired. Exiting immediately.");
            ExitCode::from(EXIT_DRAIN_TIMEOUT)
        }
    }
}

/// Returns whether every instance has ended.
async fn drain(running: &mut Running<'_>, exit_timeout: Duration) -> bool {
    let Running { core, debts, ports, tasks, stop } = running;
    debts.begin_farewell();
    debts.begin_end();
    let _ = stop.send(Stage::Leaving);
    let _ = timeout(LAST_CALLS, debts.settled(ports)).await;
    core.begin_drain();
    let core = Arc::clone(core);
    let finished = tokio::task::spawn_blocking(move || core.finish_drain(exit_timeout));
    let finished = finished.await.unwrap_or(false);
    // Who comes from now on would only be told to go, and might come without end.
    let _ = stop.send(Stage::Closed);
    // Who holds a connection open without a request, or a stream without anything on it, does not hold up the end; who
    // is slow to read an answer does.
    debts.settled(ports).await;
    let closed = async { while tasks.join_next().await.is_some() {} };
    let _ = timeout(GOODBYE, closed).await;
    finished
}
