use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trireme_host::abi::Stage;
use trireme_host::{Response, ResponseSink, Verdict};

use super::live::{Live, Token};

type Call = Box<dyn FnOnce() + Send>;

/// The answers of one request, as `A`: a queue whose reader may be slow, or gone.
pub struct Mailbox<A> {
    /// Unread answers from which on the backend is told to pause.
    capacity: usize,
    state: Mutex<State<A>>,
    changed: Condvar,
    cancelled: AtomicU32,
}

struct State<A> {
    answers: VecDeque<A>,
    waiting: Vec<Call>,
    most: usize,
    finished: bool,
}

impl<A> State<A> {
    fn is_silent(&mut self) -> bool {
        self.answers.is_empty() && !self.finished
    }
}

impl<A> Mailbox<A> {
    /// An empty one; nobody waits for its answers if it is `cancelled`.
    pub fn new(capacity: usize, cancelled: bool) -> Arc<Self> {
        let state = State { answers: VecDeque::new(), waiting: Vec::new(), most: 0, finished: false };
        Arc::new(Self {
            capacity,
            state: Mutex::new(state),
            changed: Condvar::new(),
            cancelled: AtomicU32::new(u32::from(cancelled)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits any more.
    pub fn cancel(&self) {
        self.cancelled.store(1, Ordering::Relaxed);
        let calls = std::mem::take(&mut self.lock().waiting);
        calls.into_iter().for_each(|call| call());
    }

    /// The next answer; none at the end.
    ///
    /// # Errors
    /// There is neither within `limit`.
    pub fn next(&self, limit: Duration) -> Result<Option<A>, String> {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, State::is_silent);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.is_silent() {
            return Err(format!("no answer within {limit:?}"));
        }
        let answer = state.answers.pop_front();
        let calls = match state.answers.len() < self.capacity {
            true => std::mem::take(&mut state.waiting),
            false => Vec::new(),
        };
        drop(state);
        calls.into_iter().for_each(|call| call());
        Ok(answer)
    }

    /// Waits for the first answer or the end, without reading.
    pub fn wait_for_first(&self, limit: Duration) {
        let _ = self.changed.wait_timeout_while(self.lock(), limit, State::is_silent);
    }

    /// Whether the last answer has come.
    pub fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// How many answers wait to be read.
    pub fn unread(&self) -> usize {
        self.lock().answers.len()
    }

    /// How many answers were unread at most.
    pub fn most(&self) -> usize {
        self.lock().most
    }

    /// An answer of the backend; none if it carries the flag only.
    fn put(&self, answer: Option<A>, is_final: bool) -> Verdict {
        let mut state = self.lock();
        if state.finished {
            return Verdict::Closed;
        }
        state.finished = is_final;
        state.answers.extend(answer);
        state.most = state.most.max(state.answers.len());
        let full = state.answers.len() >= self.capacity;
        drop(state);
        self.changed.notify_all();
        match (self.cancelled.load(Ordering::Relaxed), full) {
            (0, false) => Verdict::Continue,
            (0, true) => Verdict::Pause,
            _ => Verdict::Cancelled,
        }
    }
}

/// The backend's end of a mailbox. It goes when the backend has given the right to answer back.
pub struct Entrance<A> {
    mailbox: Arc<Mailbox<A>>,
    read: Box<dyn Fn(Response, bool) -> A + Send + Sync>,
    _token: Token,
}

impl<A> Entrance<A> {
    /// `read` makes an answer of what the backend has sent; its flag says whether it is the last one.
    pub fn new(
        mailbox: Arc<Mailbox<A>>,
        live: &Live,
        read: impl Fn(Response, bool) -> A + Send + Sync + 'static,
    ) -> Self {
        Self { mailbox, read: Box::new(read), _token: live.token() }
    }
}

impl<A: Send> ResponseSink for Entrance<A> {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let empty = response.outputs.is_empty()
            && response.parameters.is_empty()
            && response.error.is_none()
            && response.document.is_none();
        // The bare flag is no answer.
        let answer = (!is_final || !empty).then(|| (self.read)(response, is_final));
        self.mailbox.put(answer, is_final)
    }

    fn on_writable(&self, call: Call) {
        let mut state = self.mailbox.lock();
        let waits = state.answers.len() >= self.mailbox.capacity;
        if waits && self.mailbox.cancelled.load(Ordering::Relaxed) == 0 {
            return state.waiting.push(call);
        }
        drop(state);
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.mailbox.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {}
}
