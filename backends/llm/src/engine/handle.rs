//! The engine as others hold it: a handle, and one thread behind it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::core::capacity;
use super::driver::{Driver, Message};
use super::{Clock, Core, CoreStats, EngineOptions, Event, Flow, Request};
use crate::executor::{Executor, ExecutorInfo, MemoryUse};
use crate::profile::ProfileError;

/// Receives what becomes of a request. Called on the engine's thread: it must not block.
pub trait Sink: Send {
    /// Takes an event; [`Event::End`] is the last one and always comes.
    fn event(&mut self, request: &RequestHandle, event: Event) -> Flow;

    /// Asked before each step: whether nobody waits for the answer any more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl<F: FnMut(&RequestHandle, Event) -> Flow + Send> Sink for F {
    fn event(&mut self, request: &RequestHandle, event: Event) -> Flow {
        self(request, event)
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("the engine's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running engine. Dropped, it ends what it still holds with [`RequestError::Stopped`](super::RequestError::Stopped).
pub struct Engine {
    info: ExecutorInfo,
    memory: MemoryUse,
    clock: Clock,
    inbox: Sender<Message>,
    next: AtomicU64,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread tells of itself.
#[derive(Default)]
pub(super) struct State {
    pub(super) stats: CoreStats,
    /// Why nothing is computed any more.
    pub(super) failed: Option<Failure>,
}

/// Why an engine computes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    /// Whether the device is lost to this process: another engine on it would fail, too.
    pub device_lost: bool,
}

/// A request on its way; cheap to clone. To drop it changes nothing.
#[derive(Clone)]
pub struct RequestHandle {
    id: u64,
    inbox: Sender<Message>,
}

impl Engine {
    /// Starts the thread that drives `executor`.
    ///
    /// # Errors
    /// If the options do not fit each other, or there is no thread.
    pub fn start(executor: Box<dyn Executor>, options: EngineOptions) -> Result<Self, StartError> {
        let (info, memory) = (executor.info().clone(), executor.memory());
        let (clock, meter) = (Arc::clone(&options.clock), options.meter.clone());
        let device_lost = options.device_lost.clone();
        let core = Core::new(info.clone(), options)?;
        let state = Arc::new(Mutex::new(State { stats: core.stats(), failed: None }));
        if let Some(meter) = &meter {
            meter(&core.stats(), core.tally());
        }
        let (inbox, messages) = mpsc::channel();
        let driver = Driver::new(
            core,
            executor,
            Arc::clone(&clock),
            (meter, device_lost),
            messages,
            inbox.clone(),
            Arc::clone(&state),
        );
        let thread = std::thread::Builder::new().name("llm-engine".to_owned()).spawn(|| driver.run())?;
        Ok(Self { info, memory, clock, inbox, next: AtomicU64::new(0), state, thread: Some(thread) })
    }

    pub fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    /// What the executor had taken when it came.
    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    /// Hands a request over and returns at once. Whatever comes of it, also that it is refused, comes to `sink`.
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) -> RequestHandle {
        let handle = RequestHandle { id: self.next.fetch_add(1, Relaxed), inbox: self.inbox.clone() };
        // The thread lives as long as this handle.
        let _ = self.inbox.send(Message::Submit(handle.id, Box::new(request), sink, (self.clock)()));
        handle
    }

    /// Positions that a sequence may have, prompt included.
    pub fn capacity(&self) -> usize {
        capacity(&self.info)
    }

    /// Counts as of the last step.
    pub fn stats(&self) -> CoreStats {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stats
    }

    /// Why nothing is computed any more; `None` while the engine runs.
    pub fn failure(&self) -> Option<Failure> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    /// Returns when no request is left.
    pub fn drain(&self) {
        let (done, wait) = mpsc::channel();
        if self.inbox.send(Message::Drain(done)).is_ok() {
            // An error means that the engine is gone, and its requests with it.
            let _ = wait.recv();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // It does not unwind: what may panic is fenced.
            let _ = thread.join();
        }
    }
}

impl RequestHandle {
    pub(super) fn new(id: u64, inbox: Sender<Message>) -> Self {
        Self { id, inbox }
    }

    /// Ends the request before the next step, with [`RequestError::Cancelled`](super::RequestError::Cancelled).
    pub fn cancel(&self) {
        let _ = self.inbox.send(Message::Cancel(self.id));
    }

    /// Goes on after [`Flow::Pause`].
    pub fn resume(&self) {
        let _ = self.inbox.send(Message::Resume(self.id));
    }
}
