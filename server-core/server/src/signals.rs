//! The signals that end the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Why the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM: an orchestrator wants the server gone, and tells balancers meanwhile.
    Terminate,
    /// SIGINT: a person at the terminal.
    Interrupt,
    /// No signal: a device is lost to this process.
    DeviceLost,
}

/// The signals since the start.
pub(crate) struct Signals {
    came: mpsc::Receiver<End>,
    serving: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on. Until [`Signals::serving`] a signal ends the process at once: nobody waits for an answer. (It
    /// has to be listened for all the same: the system does not end the first process of a container by itself.)
    ///
    /// # Errors
    /// The system does not let us.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (tell, came) = mpsc::channel(8);
        let serving = Arc::new(AtomicBool::new(false));
        let served = Arc::clone(&serving);
        tokio::spawn(async move {
            loop {
                let end = tokio::select! {
                    _ = terminate.recv() => End::Terminate,
                    _ = interrupt.recv() => End::Interrupt,
                };
                if !served.load(SeqCst) {
                    tracing::info!("told to end before the start was over");
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "main waits for a model that loads; nothing is owed"
                    )]
                    std::process::exit(0);
                }
                let _ = tell.try_send(end);
            }
        });
        Ok(Self { came, serving })
    }

    /// From now on a signal is the business of who asks for it.
    pub(crate) fn serving(&self) {
        self.serving.store(true, SeqCst);
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> End {
        match self.came.recv().await {
            Some(end) => end,
            // The task that sends lives as long as the runtime.
            None => std::future::pending().await,
        }
    }
}
