//! Which models are served: what is loaded and unloaded, when, and in which order.
//!
//! ```text
//!   start ─┐            ┌─ turns: no two operations on one model, in the order in which they came
//!   load ──┼─▶ targets ─┤
//!   poll ──┘  with steps└─▶ group: steps before ensembles, independent models at once
//!                              │
//!                              ▼   unchanged ─▶ nothing
//!              records ──▶ change ─┼─ instances, policy ─▶ in place
//!              fingerprints        └─ files, config ─▶ build beside ─▶ swap ─▶ dependents again
//! ```
//! The index says what is served; the records say what it was made of, so that the next look at a repository can tell
//! what is to be done. An operation that fails leaves both as they were.

mod build;
mod commit;
mod graph;
mod group;
mod load;
mod origin;
mod permits;
mod poll;
mod records;
mod start;
mod target;
mod turns;
mod unload;

use std::sync::Mutex;

use permits::Permits;
pub(crate) use poll::Stop;
pub(crate) use records::Records;
pub(crate) use turns::Turns;

/// The state of the life cycle beside the index.
pub(crate) struct Lifecycle {
    pub(crate) turns: Turns,
    pub(crate) records: Records,
    /// So many models are loaded at once, whoever asked for them.
    permits: Permits,
    /// Ensembles are looked at again by one operation at a time. Of ensembles only, so that no backend is called meanwhile:
    /// `build` refuses what is none.
    pub(crate) again: Mutex<()>,
    /// Ends the polling.
    pub(crate) stop: std::sync::Arc<Stop>,
}

impl Lifecycle {
    pub(crate) fn new(load_threads: usize) -> Self {
        Self {
            turns: Turns::default(),
            records: Records::default(),
            permits: Permits::new(load_threads),
            again: Mutex::default(),
            stop: std::sync::Arc::default(),
        }
    }
}
