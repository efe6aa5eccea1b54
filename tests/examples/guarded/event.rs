//! Events: points in the work of a device that others wait for.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use trireme_sdk::{Error, Result};

/// What became of the work before an event: nothing yet, or how it ended.
type Outcome = Option<Result<()>>;

pub(crate) enum Event {
    /// Set by the stream when it comes there.
    Mark(Mutex<Outcome>, Condvar),
    /// Passes after all of these.
    All(Vec<Arc<Event>>),
}

impl Event {
    pub(crate) fn mark() -> Arc<Self> {
        Arc::new(Self::Mark(Mutex::default(), Condvar::new()))
    }

    pub(crate) fn set(&self, outcome: Result<()>) {
        if let Self::Mark(state, changed) = self {
            *state.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            changed.notify_all();
        }
    }

    pub(crate) fn has_passed(&self) -> Result<bool> {
        match self {
            Self::Mark(state, _) => match &*state.lock().unwrap_or_else(PoisonError::into_inner) {
                None => Ok(false),
                Some(outcome) => outcome.clone().map(|()| true),
            },
            Self::All(events) => {
                for event in events {
                    if !event.has_passed()? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    pub(crate) fn wait(&self) -> Result<()> {
        match self {
            Self::Mark(state, changed) => {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let state = changed
                    .wait_while(state, |state| state.is_none())
                    .unwrap_or_else(PoisonError::into_inner);
                state.clone().unwrap_or(Ok(()))
            }
            Self::All(events) => events.iter().try_for_each(|event| event.wait()),
        }
    }
}

/// The events that somebody holds, by their numbers.
#[derive(Default)]
pub(crate) struct Events {
    held: HashMap<u64, Arc<Event>>,
    last: u64,
}

impl Events {
    pub(crate) fn add(&mut self, event: Arc<Event>) -> u64 {
        self.last += 1;
        self.held.insert(self.last, event);
        self.last
    }

    /// An event by its number; one that was destroyed is an error, as a driver would say.
    pub(crate) fn find(&self, number: u64) -> Result<Arc<Event>> {
        let found = self.held.get(&number).cloned();
        found.ok_or_else(|| Error::internal(format!("event {number} was destroyed, or never made")))
    }

    pub(crate) fn remove(&mut self, number: u64) -> bool {
        self.held.remove(&number).is_some()
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }
}
