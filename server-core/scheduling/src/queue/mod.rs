//! The requests that wait: one line in the order of service, a look-up by id, and their deadlines.
//!
//! ```text
//!   ids:   RequestId ─▶ Key          cancel finds its entry without a search
//!   line:  Key ⇄ Key ⇄ Key           order of service: by level, on time before late, then by arrival
//!   deadlines: heap of (Time, Key)   entries that left or moved are recognised by their place and skipped
//! ```
//! An entry has at most one valid deadline in the heap: the time at which it becomes late or its end,
//! whichever is first. What became late gets its end as the next one.

mod deadlines;
mod line;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use foldhash::fast::FixedState;

use crate::mutant::mutant;
use crate::policy::{Policies, TimeoutAction};
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
    policies: Policies,
    closed: bool,
}

/// What time did to an entry.
#[derive(Debug)]
pub(crate) enum Due {
    /// Its end has come; it is out.
    Expired(Entry),
    /// It is late: it moved from one place to the other.
    Late(Place, Place),
}

impl Pending {
    pub(crate) fn new(policies: Policies) -> Self {
        Self { line: Line::new(policies.reorders()), policies, ..Self::default() }
    }

    /// Puts a request at the end of its level. Its place.
    pub(crate) fn push(&mut self, mut info: RequestInfo) -> Result<Place, Refusal> {
        if self.closed && !mutant!("taken-after-close") {
            return Err(Refusal::Closed);
        }
        let Slot::Vacant(slot) = self.ids.entry(info.id) else {
            return Err(Refusal::DuplicateId);
        };
        let level = self.policies.level_of(info.priority);
        let policy = self.policies.policy_of(level);
        let level = if mutant!("starved-priority") { u64::MAX - level } else { level };
        let max = policy.max_queue_size.saturating_add(u32::from(mutant!("queue-limit-missed")));
        if policy.max_queue_size > 0 && self.line.len_of(level) >= max as usize {
            return Err(Refusal::QueueFull { max });
        }
        info.size = info.size.max(1);
        let timeout = policy.timeout_us(info.timeout_us).map(|us| info.arrival.after_us(us));
        let late_at = match policy.timeout_action {
            TimeoutAction::Reject => {
                info.deadline = info.deadline.into_iter().chain(timeout).min();
                None
            }
            TimeoutAction::Delay => timeout.filter(|_| !mutant!("late-not-behind")),
        };
        let Some((key, place)) = self.line.push_back(info, level, late_at) else {
            return Err(Refusal::QueueFull { max: u32::MAX });
        };
        slot.insert(key);
        if let Some(first) =
            info.deadline.into_iter().chain(late_at).min().filter(|_| !mutant!("deadline-ignored"))
        {
            self.deadlines.push(first, key, &self.line);
        }
        Ok(place)
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&RequestInfo> {
        self.line.get(*self.ids.get(&id)?).map(|entry| &entry.info)
    }

    /// Takes out the request of this id, if it waits.
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Entry> {
        let key = self.ids.remove(&id)?;
        self.take_out(key)
    }

    /// Takes out the first to be served.
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        let key = self.line.head()?;
        let entry = self.take_out(key)?;
        self.ids.remove(&entry.info.id);
        Some(entry)
    }

    /// Does the earliest thing that was to be done at `now` or before.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Due> {
        if self.next_deadline()? > now {
            return None;
        }
        let key = self.deadlines.first()?.key;
        let entry = self.line.get(key)?;
        let (end, late_at) = (entry.info.deadline, entry.late_at);
        // waiting -> out
        if end.is_some_and(|end| late_at.is_none_or(|late_at| end <= late_at)) {
            let entry = self.take_out(key)?;
            self.ids.remove(&entry.info.id);
            return Some(Due::Expired(entry));
        }
        // on time -> late
        let (old, new) = self.line.make_late(key)?;
        self.deadlines.one_left(&self.line);
        if let Some(end) = end {
            self.deadlines.push(end, key, &self.line);
        }
        Some(Due::Late(old, new))
    }

    /// When there is something to be done by [`Self::pop_due`].
    pub(crate) fn next_deadline(&mut self) -> Option<Time> {
        self.deadlines.earliest(&self.line)
    }

    /// The entry behind `key`, or the first one behind `None`.
    pub(crate) fn next(&self, key: Option<Key>) -> Option<(Key, &Entry)> {
        let next = match key {
            Some(key) => self.line.next(key),
            None => self.line.head(),
        }?;
        Some((next, self.line.get(next)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn oldest_arrival(&self) -> Option<Time> {
        self.line.oldest().map(|entry| entry.info.arrival)
    }

    /// Whether requests can be served in another order than that of arrival.
    pub(crate) fn reorders(&self) -> bool {
        self.policies.reorders()
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        if mutant!("lost-on-reload") {
            self.pop_front();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn take_out(&mut self, key: Key) -> Option<Entry> {
        let entry = self.line.remove(key)?;
        if entry.info.deadline.is_some() || entry.late_at.is_some() {
            self.deadlines.one_left(&self.line);
        }
        Some(entry)
    }
}
