//! Requests that nobody waits for, and those whose time is over.

use std::time::{Duration, Instant};

use super::{Verdict, pass};
use crate::case::Ask;
use crate::client::now_ns;
use crate::replies::Pending;
use crate::running::Bench;

/// Within how long a cancelled request ends, unless `conformance.json` says otherwise.
const LATENCY: u64 = 1000;

pub(super) fn cancellation_latency(bench: &Bench<'_>) -> Verdict {
    let latency = Duration::from_millis(bench.subject.declared.cancellation_ms.unwrap_or(LATENCY));
    let worker = bench.start()?;
    let mut longest = Duration::ZERO;
    let mut in_time = |pending: &Pending, since: Instant, when: &str| -> Result<(), String> {
        // Answers on the way are read, so that nobody is kept by a full queue; each may take as long as the whole.
        while pending
            .next(latency.saturating_sub(since.elapsed()))
            .map_err(|_| too_late(when, latency))?
            .is_some()
        {}
        longest = longest.max(since.elapsed());
        if since.elapsed() > latency { Err(too_late(when, latency)) } else { Ok(()) }
    };
    let mut waited = 0;
    for case in bench.cases()? {
        let start = Instant::now();
        let gone = Ask { cancelled: true, ..Ask::new(&case) };
        in_time(&bench.submit(&worker, &[gone])?[0], start, "before it ran")?;

        // Where `execute` computes itself, the request has ended by now, and that is soon enough.
        let pending = bench.submit(&worker, &[Ask::new(&case)])?;
        if !pending[0].is_finished() {
            pending[0].wait_for_first(Duration::from_millis(20));
            waited += usize::from(!pending[0].is_finished());
            pending[0].cancel();
            in_time(&pending[0], Instant::now(), "while it ran")?;
        }
        if bench.config.decoupled {
            let slow = Ask { capacity: 1, ..Ask::new(&case) };
            let pending = bench.submit(&worker, &[slow])?;
            pending[0].wait_for_first(bench.limit());
            pending[0].cancel();
            in_time(&pending[0], Instant::now(), "while it was paused")?;
        }
    }
    worker.end()?;
    pass(format!("at most {longest:.1?}, allowed {latency:?}; {waited} were under way"))
}

fn too_late(when: &str, latency: Duration) -> String {
    format!("a request that was cancelled {when} had not ended after {latency:?}")
}

pub(super) fn deadlines(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let case = bench.case()?;
    for (name, deadline_ns) in [("over", 1), ("over in 5 ms", now_ns() + 5_000_000)] {
        let ask = Ask { deadline_ns, ..Ask::new(&case) };
        bench.ask(&worker, &ask).map_err(|error| format!("a request whose time is {name}: {error}"))?;
    }
    bench.ask(&worker, &Ask::new(&case)).map_err(|error| format!("the request after them: {error}"))?;
    worker.end()?;
    pass("")
}
