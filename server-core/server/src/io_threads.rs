//! The threads that serve connections: a runtime of one thread each.
//!
//! A connection stays on the thread that it was dealt to, and an answer wakes that thread alone; one runtime of several
//! threads would wake two or three for a request, only to find out who has the work.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Runtimes that work until this is dropped.
pub(crate) struct IoThreads {
    handles: Vec<Handle>,
    _stop: watch::Sender<()>,
}

impl IoThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system has no thread or no event queue left.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let one = |number: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut stopped = stopped.clone();
            std::thread::Builder::new().name(format!("io{number}")).spawn(move || {
                // Ends with an error when the sender is dropped.
                let _ = runtime.block_on(stopped.changed());
            })?;
            Ok(handle)
        };
        Ok(Self { handles: (0..count).map(one).collect::<io::Result<_>>()?, _stop: stop })
    }

    /// For the front ends' options.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }
}
