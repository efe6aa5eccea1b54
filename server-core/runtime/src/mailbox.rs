//! Where the answers of one request wait for the front end: written by a backend's thread, read by an async task.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::task::{Context, Poll, Waker};

use crate::statistics::lock;

/// How many unread answers of one request there may be before its backend is asked to pause.
const HIGH_WATER: usize = 64;
/// At how many unread answers a paused backend may go on.
const LOW_WATER: usize = 16;

/// How many there may be at all: a backend that does not pause must not fill the memory.
pub(crate) const LIMIT: usize = 1 << 16;

type Writable = Box<dyn FnOnce() + Send>;

/// A queue with one reader. `T` is an answer.
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    /// Whether letters wait, for who does not want to take the lock.
    filled: AtomicBool,
}

struct State<T> {
    letters: VecDeque<T>,
    waker: Option<Waker>,
    writable: Option<Writable>,
    paused: bool,
    /// The reader is gone: letters are dropped.
    abandoned: bool,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        let state =
            State { letters: VecDeque::new(), waker: None, writable: None, paused: false, abandoned: false };
        Self { state: Mutex::new(state), filled: AtomicBool::new(false) }
    }

    /// Whether there is something to read.
    pub(crate) fn has_letter(&self) -> bool {
        self.filled.load(Acquire)
    }

    /// Whether the writer has gone on for so long after it was asked to pause that no more is taken.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.state).letters.len() >= LIMIT
    }

    /// Adds a letter; true if the writer should pause.
    pub(crate) fn push(&self, letter: T) -> bool {
        let mut state = lock(&self.state);
        if state.abandoned {
            return false;
        }
        state.letters.push_back(letter);
        // Once paused it stays so until `poll_next` ends it: that is what calls `writable`.
        state.paused |= state.letters.len() >= HIGH_WATER;
        let paused = state.paused;
        let waker = state.waker.take();
        self.filled.store(true, Release);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        paused
    }

    /// Calls `call` when there is room, at once if there is.
    pub(crate) fn on_writable(&self, call: Writable) {
        let mut state = lock(&self.state);
        if state.paused && !state.abandoned {
            let earlier = state.writable.replace(call);
            drop(state);
            // Each call is made once: an earlier one gives way at once.
            if let Some(earlier) = earlier {
                earlier();
            }
        } else {
            drop(state);
            call();
        }
    }

    /// The next letter, or pending with the task's waker kept.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut state = lock(&self.state);
        let Some(letter) = state.letters.pop_front() else {
            match &mut state.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                other => *other = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        self.filled.store(!state.letters.is_empty(), Release);
        if state.paused && state.letters.len() <= LOW_WATER {
            state.paused = false;
            let call = state.writable.take();
            drop(state);
            if let Some(call) = call {
                call();
            }
        }
        Poll::Ready(letter)
    }

    /// Nobody will read any more: frees what waits and lets a paused writer go on (to find itself cancelled).
    pub(crate) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        state.paused = false;
        let letters = std::mem::take(&mut state.letters);
        let call = state.writable.take();
        state.waker = None;
        drop(state);
        drop(letters);
        if let Some(call) = call {
            call();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn read(mailbox: &Mailbox<u32>) -> Poll<u32> {
        mailbox.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn letters_arrive_in_order() {
        let mailbox = Mailbox::new();
        assert!(!mailbox.has_letter() && read(&mailbox).is_pending());
        mailbox.push(1);
        mailbox.push(2);
        assert_eq!(read(&mailbox), Poll::Ready(1));
        assert!(mailbox.has_letter());
        assert_eq!(read(&mailbox), Poll::Ready(2));
        assert!(!mailbox.has_letter() && read(&mailbox).is_pending());
    }

    #[test]
    fn a_slow_reader_pauses_the_writer_until_the_low_water_mark() {
        let mailbox = Mailbox::new();
        let called = Arc::new(AtomicU32::new(0));
        for i in 1..HIGH_WATER as u32 {
            assert!(!mailbox.push(i));
        }
        assert!(mailbox.push(0));
        let count = called.clone();
        mailbox.on_writable(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        for _ in 0..HIGH_WATER - LOW_WATER - 1 {
            assert!(read(&mailbox).is_ready());
        }
        assert_eq!(called.load(Ordering::Relaxed), 0);
        assert!(read(&mailbox).is_ready());
        assert_eq!(called.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_abandoned_mailbox_releases_a_paused_writer_and_keeps_nothing() {
        let mailbox = Mailbox::new();
        while !mailbox.push(7) {}
        let called = Arc::new(AtomicU32::new(0));
        let count = called.clone();
        mailbox.on_writable(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        mailbox.abandon();
        assert_eq!(called.load(Ordering::Relaxed), 1);
        assert!(!mailbox.push(8));
        assert!(read(&mailbox).is_pending());
    }
}
