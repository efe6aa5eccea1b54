//! The clients of a backend under test: what they are answered, and what they still wait for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trireme_host::abi::{DType, Stage};
use trireme_host::{HostMemory, Response, ResponseSink, Status, Verdict};

/// How many things a backend holds at the moment.
#[derive(Clone, Default)]
pub(crate) struct Live(Arc<(Mutex<usize>, Condvar)>);

/// One of these things.
pub(crate) struct Token(Live);

impl Live {
    pub(crate) fn token(&self) -> Token {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Token(self.clone())
    }

    /// Waits until there are none; how many are left after `limit`.
    pub(crate) fn settle(&self, limit: Duration) -> usize {
        let count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(count, limit, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.1.notify_all();
    }
}

/// Bytes that are counted as long as somebody holds them, at an address that is aligned to nothing.
pub(crate) struct Counted {
    data: Vec<u8>,
    _token: Token,
}

impl Counted {
    pub(crate) fn new(bytes: &[u8], live: &Live) -> Self {
        Self { data: [&[0], bytes].concat(), _token: live.token() }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data[1..]
    }
}

/// One answer, copied out of the backend's memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) outputs: Vec<Output>,
    pub(crate) parameters: usize,
    pub(crate) error: Option<(u32, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

type Call = Box<dyn FnOnce() + Send>;

/// Where the answers of one request go.
pub(crate) struct Sink {
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
    cancelled: AtomicU32,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    waiting: Vec<Call>,
    most: usize,
    finished: bool,
}

/// The client's end.
pub(crate) struct Pending {
    sink: Arc<Sink>,
}

/// The backend's end. It goes when the backend has given the right to answer back.
struct Entrance {
    sink: Arc<Sink>,
    _token: Token,
}

/// What came until the end.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) answers: Vec<Answer>,
    /// How many answers were unread at most.
    pub(crate) most: usize,
}

pub(crate) fn client(capacity: usize, cancelled: bool, live: &Live) -> (Arc<dyn ResponseSink>, Pending) {
    let sink = Arc::new(Sink {
        capacity,
        state: Mutex::default(),
        changed: Condvar::new(),
        cancelled: AtomicU32::new(u32::from(cancelled)),
    });
    let entrance = Entrance { sink: Arc::clone(&sink), _token: live.token() };
    (Arc::new(entrance), Pending { sink })
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Nobody waits any more.
    pub(crate) fn cancel(&self) {
        self.sink.cancelled.store(1, Ordering::Relaxed);
        let calls = std::mem::take(&mut self.sink.lock().waiting);
        calls.into_iter().for_each(|call| call());
    }

    /// The next answer; none at the end, `Err` if there is neither in time.
    pub(crate) fn next(&self, limit: Duration) -> Result<Option<Answer>, String> {
        let state = self.sink.lock();
        let empty = |state: &mut State| state.answers.is_empty() && !state.finished;
        let waited = self.sink.changed.wait_timeout_while(state, limit, empty);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if empty(&mut state) {
            return Err(format!("no answer within {limit:?}"));
        }
        let answer = state.answers.pop_front();
        let calls = match state.answers.len() < self.sink.capacity {
            true => std::mem::take(&mut state.waiting),
            false => Vec::new(),
        };
        drop(state);
        calls.into_iter().for_each(|call| call());
        Ok(answer)
    }

    /// Waits for the first answer or the end, without reading.
    pub(crate) fn wait_for_first(&self, limit: Duration) {
        let empty = |state: &mut State| state.answers.is_empty() && !state.finished;
        let _ = self.sink.changed.wait_timeout_while(self.sink.lock(), limit, empty);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.sink.lock().finished
    }

    /// All answers; `limit` is for each.
    pub(crate) fn all(&self, limit: Duration) -> Result<Replies, String> {
        let mut answers = Vec::new();
        while let Some(answer) = self.next(limit)? {
            answers.push(answer);
        }
        Ok(Replies { answers, most: self.sink.lock().most })
    }
}

impl ResponseSink for Entrance {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let output = |output: trireme_host::Output| Output {
            name: output.name,
            dtype: output.dtype,
            shape: output.shape.to_vec(),
            data: output.data.to_vec(),
        };
        let answer = Answer {
            outputs: response.outputs.into_iter().map(output).collect(),
            parameters: response.parameters.len(),
            error: response.error.map(|error| (error.code.0, error.message)),
        };
        let mut state = self.sink.lock();
        if state.finished {
            return Verdict::Closed;
        }
        if is_final {
            state.finished = true;
        }
        // The bare flag is no answer.
        if !is_final || answer != Answer::default() {
            state.answers.push_back(answer);
        }
        state.most = state.most.max(state.answers.len());
        let full = state.answers.len() >= self.sink.capacity;
        drop(state);
        self.sink.changed.notify_all();
        match (self.sink.cancelled.load(Ordering::Relaxed), full) {
            (0, false) => Verdict::Continue,
            (0, true) => Verdict::Pause,
            _ => Verdict::Cancelled,
        }
    }

    fn on_writable(&self, call: Call) {
        let mut state = self.sink.lock();
        let waits = state.answers.len() >= self.sink.capacity;
        if waits && self.sink.cancelled.load(Ordering::Relaxed) == 0 {
            return state.waiting.push(call);
        }
        drop(state);
        call();
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.sink.cancelled
    }

    fn mark(&self, _: Stage, _: u64) {}

    fn allocate(&self, _: &str, byte_size: usize) -> Result<HostMemory, Status> {
        HostMemory::allocate(byte_size)
    }
}
