//! What became of every request: the count of answers, kept apart from the dispatchers.

use super::event::At;
use super::finding::Finding;
use crate::instances::InstanceId;
use crate::request::RequestId;
use crate::time::Time;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It never came, or was refused.
    #[default]
    Absent,
    Waiting,
    Running(InstanceId),
    Answered,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) state: State,
    /// The load that took it.
    pub(super) model: u32,
    pub(super) arrival: Time,
    /// Its place in the order of answers.
    pub(super) place: u64,
    /// What it asked for, if the cache is to learn it.
    pub(super) content: Option<u16>,
}

/// A batch that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) at: At,
    pub(super) now: Time,
    /// Its requests are `ids[from..to]` of the ledger.
    pub(super) from: usize,
    pub(super) to: usize,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    /// Batches that nobody has taken note of.
    pub(super) started: Vec<Started>,
    pub(super) ids: Vec<RequestId>,
    pub(super) batches: u64,
    pub(super) batched: u64,
    /// Requests that were taken and have no last answer.
    pub(super) open: usize,
}

impl Ledger {
    pub(super) fn get(&self, id: u64) -> Entry {
        usize::try_from(id).ok().and_then(|id| self.entries.get(id)).copied().unwrap_or_default()
    }

    pub(super) fn take(&mut self, id: u64, entry: Entry) {
        let index = id as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::default());
        }
        if let Some(known) = self.entries.get_mut(index) {
            *known = entry;
            self.open += 1;
        }
    }

    /// # Errors
    /// It does not wait.
    pub(super) fn run(&mut self, id: RequestId, model: u32, instance: InstanceId) -> Result<(), Finding> {
        match self.entries.get_mut(id.0 as usize) {
            Some(entry) if entry.state == State::Waiting && entry.model == model => {
                entry.state = State::Running(instance);
                Ok(())
            }
            _ => Err(Finding::AnsweredTwice(id.0)),
        }
    }

    /// The last answer. What the request was.
    ///
    /// # Errors
    /// It had one, or was never taken.
    pub(super) fn answer(&mut self, id: RequestId) -> Result<Entry, Finding> {
        match self.entries.get_mut(id.0 as usize) {
            Some(entry) if matches!(entry.state, State::Waiting | State::Running(_)) => {
                let was = *entry;
                entry.state = State::Answered;
                self.open -= 1;
                Ok(was)
            }
            _ => Err(Finding::AnsweredTwice(id.0)),
        }
    }

    /// # Errors
    /// A request has no last answer; the first.
    pub(super) fn check_all_answered(&self) -> Result<(), Finding> {
        let open = |entry: &Entry| matches!(entry.state, State::Waiting | State::Running(_));
        match self.entries.iter().position(open) {
            Some(id) => Err(Finding::NeverAnswered(id as u64)),
            None => Ok(()),
        }
    }
}
