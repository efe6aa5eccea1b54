//! The requests that wait: one FIFO line, a look-up by id, and their deadlines.
//!
//! ```text
//!   ids:   RequestId ─▶ Key          cancel finds its entry without a search
//!   line:  Key ⇄ Key ⇄ Key           order of arrival; an entry leaves from the middle as cheaply as from the head
//!   deadlines: heap of (Time, Key)   entries that left are recognised by their place and skipped
//! ```
//! Priority levels will be several lines with one look-up and one heap; a [`Place`] then starts with the level.

mod deadlines;
mod line;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use foldhash::fast::FixedState;

use crate::request::{RequestId, RequestInfo};
use crate::scheduler::Refusal;
use crate::time::Time;
use deadlines::Deadlines;
use line::Line;
pub(crate) use line::{Entry, Key, Place};

#[derive(Debug, Default)]
pub(crate) struct Pending {
    // Ids are made by the caller, not by a client, so a fixed seed is safe.
    ids: HashMap<RequestId, Key, FixedState>,
    line: Line,
    deadlines: Deadlines,
    closed: bool,
}

impl Pending {
    /// Puts a request at the end of the line.
    pub(crate) fn push(&mut self, mut info: RequestInfo) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let Slot::Vacant(slot) = self.ids.entry(info.id) else {
            return Err(Refusal::DuplicateId);
        };
        info.size = info.size.max(1);
        let (key, place) = self.line.push_back(info);
        slot.insert(key);
        if let Some(deadline) = info.deadline {
            self.deadlines.push(deadline, key, place);
        }
        Ok(())
    }

    /// Takes out the request of this id, if it waits.
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Entry> {
        let key = self.ids.remove(&id)?;
        self.take_out(key)
    }

    /// Takes out the oldest request.
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        let key = self.line.head()?;
        let entry = self.take_out(key)?;
        self.ids.remove(&entry.info.id);
        Some(entry)
    }

    /// Takes out one request whose deadline is at `now` or before.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Entry> {
        if self.next_deadline()? > now {
            return None;
        }
        let key = self.deadlines.first()?.key;
        let entry = self.take_out(key)?;
        self.ids.remove(&entry.info.id);
        Some(entry)
    }

    /// The earliest deadline of those that wait.
    pub(crate) fn next_deadline(&mut self) -> Option<Time> {
        self.deadlines.earliest(&self.line)
    }

    /// The entry behind `key`, or the head of the line behind `None`.
    pub(crate) fn next(&self, key: Option<Key>) -> Option<(Key, &Entry)> {
        let next = match key {
            Some(key) => self.line.get(key)?.next,
            None => self.line.head(),
        }?;
        Some((next, self.line.get(next)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn oldest_arrival(&self) -> Option<Time> {
        self.next(None).map(|(_, entry)| entry.info.arrival)
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn take_out(&mut self, key: Key) -> Option<Entry> {
        let entry = self.line.remove(key)?;
        if entry.info.deadline.is_some() {
            self.deadlines.one_left(&self.line);
        }
        Some(entry)
    }
}
