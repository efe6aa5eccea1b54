//! The walk along the line that decides where a batch is cut.
//!
//! ```text
//!   line:     A    B    C    D    E    F …        preferred 4, largest preferred 4, max 8
//!   total:    1    2    3    4    5    6
//!                            ▲              ▲
//!                            best cut       cursor: the walk goes on from here when more requests have arrived
//! ```
//! The walk is kept between questions, so a request is looked at once while a batch grows. It starts again
//! when a batch was cut or when the line changed before the point that it had reached; it never looks at more
//! than `max_batch_size` requests and one.

use super::config::DynamicConfig;
use crate::mutant::mutant;
use crate::queue::{Key, Pending, Place};
use crate::request::ShapeKey;
use crate::scheduler::Room;
use crate::time::Time;

/// How far a walk needs to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the largest preferred size: what lies behind it cannot matter while the delay runs.
    Preferred,
    /// To `max_batch_size`: the delay is over and everything that fits goes, or the delay of one that is
    /// served late may be over.
    Max,
}

#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The last request that is part of the walk.
    cursor: Option<Key>,
    /// The place of the last request looked at, which is behind the cursor if it closed the batch.
    seen: Option<Place>,
    shape: ShapeKey,
    /// Requests and elements walked.
    pub(super) count: usize,
    total: u32,
    /// When the oldest of them arrived.
    oldest: Option<Time>,
    /// Requests up to the best cut.
    pub(super) best: Option<usize>,
    /// Requests up to the largest preferred size, or before it would be exceeded.
    preferred_end: Option<usize>,
    /// The next request can never join.
    pub(super) closed: bool,
}

impl Walk {
    /// Goes on along the line as far as the rules, `reach` and the asking instance's `room` allow.
    pub(super) fn go_on(&mut self, queue: &Pending, config: &DynamicConfig, reach: Reach, room: Room) {
        while !self.closed && self.count < room.0 && (reach == Reach::Max || !self.is_full(config)) {
            let Some((key, entry)) = queue.next(self.cursor) else { return };
            self.seen = Some(entry.place);
            let size = entry.info.size;
            if self.count == 0 {
                self.shape = entry.info.shape_key;
            } else {
                let total = self.total.saturating_add(size);
                // It would go past every preferred size and none was met: the batch is best cut before it.
                if total > config.largest_preferred() && self.best.is_none() {
                    self.best = Some(self.count);
                    self.preferred_end = Some(self.count);
                    if reach == Reach::Preferred {
                        return;
                    }
                }
                // It does not fit, or is of another shape: it closes the batch. What lies behind is not looked at.
                let too_large = total > config.max_batch_size() && !mutant!("batch-too-large");
                let other_shape = entry.info.shape_key != self.shape && !mutant!("mixed-shapes");
                if too_large || other_shape {
                    self.closed = true;
                    return;
                }
            }
            self.cursor = Some(key);
            self.count += 1;
            self.total = self.total.saturating_add(size);
            self.oldest = self.oldest.into_iter().chain([entry.info.arrival]).min();
            if self.preferred_end.is_none() && self.is_full(config) {
                self.preferred_end = Some(self.count);
            }
            // The largest preferred size met wins.
            if config.is_preferred(self.total) {
                self.best = Some(self.count);
            }
        }
    }

    /// Whether the batch has reached the largest preferred size.
    pub(super) fn is_full(&self, config: &DynamicConfig) -> bool {
        self.total >= config.largest_preferred()
    }

    /// When the oldest request walked arrived.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.oldest
    }

    /// Requests that may go while the delay runs: what lies behind the largest preferred size may not.
    pub(super) fn in_time(&self) -> usize {
        self.preferred_end.unwrap_or(self.count)
    }

    /// The line has changed at this place, other than by a batch.
    pub(super) fn on_change(&mut self, place: Place) {
        if self.seen.is_some_and(|seen| place <= seen) {
            *self = Self::default();
        }
    }
}
