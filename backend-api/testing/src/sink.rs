use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trireme_host::abi::Stage;
use trireme_host::{Response, ResponseSink, Verdict};

use crate::answer::Answer;
use crate::config::Config;
use crate::live::Token;

type Call = Box<dyn FnOnce() + Send>;

/// Where the answers of one request go: a queue whose reader may be slow.
pub(crate) struct Sink {
    pub(crate) config: Arc<Config>,
    /// Unread answers from which on the backend is told to pause.
    pub(crate) capacity: usize,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    pub(crate) cancelled: AtomicU32,
}

#[derive(Default)]
pub(crate) struct State {
    answers: VecDeque<Answer>,
    waiting: Vec<Call>,
    finished: bool,
    /// What the backend did against the configuration.
    complaint: Option<String>,
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(1, Ordering::Relaxed);
        let calls = std::mem::take(&mut self.lock().waiting);
        calls.into_iter().for_each(|call| call());
    }

    /// The next answer; none after the last one. Panics when there is none in time.
    pub(crate) fn next(&self, limit: Duration) -> Option<Answer> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while state.answers.is_empty() && !state.finished {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer within {limit:?}");
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(complaint) = &state.complaint {
            panic!("the backend broke its model's configuration: {complaint}");
        }
        let answer = state.answers.pop_front();
        let calls = match state.answers.len() < self.capacity {
            true => std::mem::take(&mut state.waiting),
            false => Vec::new(),
        };
        drop(state);
        calls.into_iter().for_each(|call| call());
        answer
    }

    /// How many answers wait to be read.
    pub(crate) fn unread(&self) -> usize {
        self.lock().answers.len()
    }

    fn complaint(&self, answer: &Answer) -> Option<String> {
        answer.outputs.iter().find_map(|output| {
            match self.config.outputs.iter().find(|tensor| tensor.name == output.name) {
                None => Some(format!("there is no output '{}'", output.name)),
                Some(tensor) => tensor.difference(self.config.batches, output.data_type, &output.shape),
            }
        })
    }
}

/// The backend's end of a sink. It goes when the backend has given the right to answer back.
pub(crate) struct Entrance {
    pub(crate) sink: Arc<Sink>,
    pub(crate) _token: Token,
}

impl ResponseSink for Entrance {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let answer = Answer::new(response, is_final);
        let complaint = self.sink.complaint(&answer);
        let mut state = self.sink.lock();
        if state.finished {
            return Verdict::Closed;
        }
        state.finished = is_final;
        state.complaint = state.complaint.take().or(complaint);
        // The bare flag is no answer.
        if !is_final
            || answer.error.is_some()
            || answer.document.is_some()
            || !answer.outputs.is_empty()
            || !answer.parameters.is_empty()
        {
            state.answers.push_back(answer);
        }
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
}
