//! Settings from the environment, for tests only: those of tritonserver's own test suites.

use anyhow::Context;
use trireme_runtime::StartAfter;

const QUEUED: &str = "TRITONSERVER_DELAY_SCHEDULER";
const BACKLOG: &str = "TRITONSERVER_BACKLOG_DELAY_SCHEDULER";

/// How many requests batchers wait for before they begin.
///
/// # Errors
/// A value that is no number.
pub(crate) fn start_after() -> anyhow::Result<StartAfter> {
    let start_after = StartAfter { queued: number(QUEUED)?, backlog: number(BACKLOG)? };
    if start_after.queued > 0 {
        tracing::warn!(
            "{QUEUED} is set: the batcher of each model forms no batch before {} requests wait",
            start_after.queued
        );
    }
    Ok(start_after)
}

fn number(name: &str) -> anyhow::Result<u32> {
    let Some(text) = std::env::var_os(name) else { return Ok(0) };
    let text = text.to_string_lossy();
    let text = text.trim();
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .with_context(|| format!("the environment's {name} is '{text}': a number of requests is expected"))
}
