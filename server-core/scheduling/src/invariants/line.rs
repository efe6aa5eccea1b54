//! The order of service, and the ends.

use std::collections::{BTreeMap, BTreeSet};

use super::Waiting;
use crate::request::RequestId;
use crate::time::Time;

/// Every set is in the order in which it is asked; an entry is in one of `on_time` and `late`.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By level and arrival.
    on_time: BTreeMap<(u64, u64), RequestId>,
    /// Of those, who will be late, and when.
    will_be_late: BTreeMap<(Time, u64), u64>,
    /// By level, timeout and arrival.
    late: BTreeMap<(u64, Time, u64), RequestId>,
    ends: BTreeSet<(Time, RequestId)>,
    levels: BTreeMap<u64, usize>,
}

impl Line {
    pub(super) fn push(&mut self, id: RequestId, waiting: &Waiting) {
        self.on_time.insert((waiting.level, waiting.number), id);
        if let Some(late_at) = waiting.late_at {
            self.will_be_late.insert((late_at, waiting.number), waiting.level);
        }
        self.ends.extend(waiting.end.map(|end| (end, id)));
        *self.levels.entry(waiting.level).or_default() += 1;
    }

    pub(super) fn remove(&mut self, id: RequestId, waiting: &Waiting) {
        self.on_time.remove(&(waiting.level, waiting.number));
        if let Some(late_at) = waiting.late_at {
            self.will_be_late.remove(&(late_at, waiting.number));
            self.late.remove(&(waiting.level, late_at, waiting.number));
        }
        if let Some(end) = waiting.end {
            self.ends.remove(&(end, id));
        }
        if let Some(len) = self.levels.get_mut(&waiting.level) {
            *len -= 1;
        }
    }

    /// Who is to be served first.
    pub(super) fn first(&mut self, now: Time) -> Option<RequestId> {
        while let Some(entry) = self.will_be_late.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((late_at, number), level) = entry.remove_entry();
            if let Some(id) = self.on_time.remove(&(level, number)) {
                self.late.insert((level, late_at, number), id);
            }
        }
        let on_time = self.on_time.first_key_value().map(|((level, _), id)| (*level, false, *id));
        let late = self.late.first_key_value().map(|((level, ..), id)| (*level, true, *id));
        on_time.into_iter().chain(late).min_by_key(|(level, late, _)| (*level, *late)).map(|(_, _, id)| id)
    }

    pub(super) fn first_end(&self) -> Option<(Time, RequestId)> {
        self.ends.first().copied()
    }

    pub(super) fn len_of(&self, level: u64) -> usize {
        self.levels.get(&level).copied().unwrap_or(0)
    }
}
