//! Requests that the process has and has not answered yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use trireme_sdk::{Caller, Error, Responder, Response, Verdict};

use crate::outgoing::{Sender, lock};
use crate::wire::{self, to};

/// How many responses the server takes between two words to the process that it has taken them. Less than half of the
/// window in `inference.py`, so that a steady stream never waits.
const STEP: u64 = 8;
/// Said of a request that wants no more responses, so that nobody waits for them to be taken.
const ALL_TAKEN: u64 = u64::MAX;

/// The requests of one instance, over all its processes.
pub(crate) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Which process they are with; none if there is none.
    generation: Option<u64>,
    waiting: HashMap<u64, Waiting>,
    /// On whose behalf other models are asked. It holds a request, and with it its model: it goes with the last request,
    /// or else the model could never end.
    caller: Option<Caller>,
    /// Whether `execute` has not returned yet.
    executing: bool,
}

impl State {
    /// The right to ask, if there is nothing any more for which it could be used; to be dropped without the lock.
    fn spent(&mut self) -> Option<Caller> {
        self.caller.take_if(|_| self.waiting.is_empty() && !self.executing)
    }
}

struct Waiting {
    /// Absent while somebody is sending with it.
    responder: Option<Responder>,
    /// What came meanwhile.
    queue: VecDeque<Part>,
    taken: u64,
}

/// What a process says to a request.
pub(crate) enum Part {
    /// A response, the last one if it says so.
    Response(Response, bool),
    /// The end, without a further response.
    End,
    Failure(Error),
}

impl Part {
    fn is_last(&self) -> bool {
        !matches!(self, Self::Response(_, false))
    }
}

impl Requests {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }

    /// A process is there and may be given requests.
    pub(crate) fn open(&self, generation: u64) {
        lock(&self.state).generation = Some(generation);
    }

    /// Notes requests that are about to be sent; gives them back if that process is gone.
    pub(crate) fn add(
        &self,
        generation: u64,
        batch: Vec<(u64, Responder)>,
    ) -> Result<(), Vec<(u64, Responder)>> {
        let caller = asking(&batch);
        let mut state = lock(&self.state);
        if state.generation != Some(generation) {
            return Err(batch);
        }
        state.executing = true;
        let before = std::mem::replace(&mut state.caller, caller);
        for (number, responder) in batch {
            let waiting = Waiting { responder: Some(responder), queue: VecDeque::new(), taken: 0 };
            state.waiting.insert(number, waiting);
        }
        drop(state);
        drop(before);
        Ok(())
    }

    /// `execute` has returned.
    pub(crate) fn executed(&self) {
        let mut state = lock(&self.state);
        state.executing = false;
        let spent = state.spent();
        drop(state);
        drop(spent);
    }

    /// The right to ask other models on behalf of what is being answered.
    pub(crate) fn caller(&self) -> Option<Caller> {
        lock(&self.state).caller.clone()
    }

    /// The process is gone: whatever it had is answered with an error.
    pub(crate) fn close(&self, error: &Error) {
        let mut state = lock(&self.state);
        state.generation = None;
        state.executing = false;
        let waiting = std::mem::take(&mut state.waiting);
        let spent = state.spent();
        drop(state);
        drop(spent);
        // Without the lock. A responder that is away is dropped by whoever has it, which answers too.
        for responder in waiting.into_values().filter_map(|one| one.responder) {
            responder.fail(error.clone());
        }
        self.changed.notify_all();
    }

    /// Waits until no request is open.
    pub(crate) fn drain(&self) {
        let mut state = lock(&self.state);
        while !state.waiting.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn is_cancelled(&self, number: u64) -> bool {
        let state = lock(&self.state);
        let responder = state.waiting.get(&number).and_then(|one| one.responder.as_ref());
        responder.is_some_and(Responder::is_cancelled)
    }

    /// Passes on what the process says to a request. What is said to one that is answered is dropped.
    pub(crate) fn deliver(self: &Arc<Self>, sender: &Arc<Sender>, number: u64, part: Part) {
        let mut state = lock(&self.state);
        let Some(waiting) = state.waiting.get_mut(&number) else {
            drop(state);
            return taken(sender, number, ALL_TAKEN);
        };
        waiting.queue.push_back(part);
        let Some(responder) = waiting.responder.take() else { return };
        drop(state);
        self.send(sender, number, responder);
    }

    /// Sends what waits, as far as the reader is not behind.
    fn send(self: &Arc<Self>, sender: &Arc<Sender>, number: u64, mut responder: Responder) {
        loop {
            let mut state = lock(&self.state);
            let Some(waiting) = state.waiting.get_mut(&number) else {
                drop(state);
                return responder.fail(Error::unavailable("the process of the model has ended"));
            };
            let Some(part) = waiting.queue.pop_front() else {
                waiting.responder = Some(responder);
                return;
            };
            if part.is_last() {
                state.waiting.remove(&number);
                let spent = state.spent();
                drop(state);
                drop(spent);
                self.changed.notify_all();
                return end(responder, part);
            }
            waiting.taken += 1;
            let count = waiting.taken;
            drop(state);
            let Part::Response(response, _) = part else { continue };
            match responder.send(response) {
                Verdict::Continue if count % STEP == 0 => taken(sender, number, count),
                Verdict::Continue => {}
                Verdict::Pause => {
                    let slot = Arc::new(Mutex::new(Parked::NotYet));
                    let (this, sender_too, slot_too) = (Arc::clone(self), Arc::clone(sender), Arc::clone(&slot));
                    responder.on_writable(move || {
                        let parked = std::mem::replace(&mut *lock(&slot_too), Parked::GoOn);
                        if let Parked::Here(responder) = parked {
                            taken(&sender_too, number, count);
                            this.send(&sender_too, number, responder);
                        }
                    });
                    let mut parked = lock(&slot);
                    if matches!(*parked, Parked::NotYet) {
                        *parked = Parked::Here(responder);
                        return;
                    }
                    // There is room already.
                    taken(sender, number, count);
                }
                Verdict::Cancelled | Verdict::Closed => taken(sender, number, ALL_TAKEN),
            }
        }
    }
}

/// The right to ask other models on behalf of these requests: of the first that somebody waits for.
fn asking(responders: &[(u64, Responder)]) -> Option<Caller> {
    let alive = responders.iter().filter(|(_, responder)| !responder.is_cancelled());
    let (_, responder) = alive.chain(responders).next()?;
    responder.caller().ok()
}

/// A responder whose reader is behind.
enum Parked {
    NotYet,
    Here(Responder),
    /// There is room again.
    GoOn,
}

fn end(mut responder: Responder, part: Part) {
    responder.computed();
    match part {
        Part::Response(response, _) => responder.finish(response),
        Part::End => responder.close(),
        Part::Failure(error) => responder.fail(error),
    }
}

/// Tells the process how many responses of a request were taken.
fn taken(sender: &Arc<Sender>, number: u64, count: u64) {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body[8..].copy_from_slice(&count.to_le_bytes());
    sender.send(wire::plain(to::ACCEPTED, &body));
}
