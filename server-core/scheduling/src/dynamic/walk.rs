//! The walk along the line that decides where a batch is cut.
//!
//! ```text
//!   line:     A    B    C    D    E    F …        preferred 4, largest preferred 4, max 8
//!   total:    1    2    3    4    5    6
//!                            ▲              ▲
//!                            best cut       cursor: the walk goes on from here when more requests have arrived
//! ```
//! The walk is kept between questions, so a request is looked at once while a batch grows. It starts again when a
//! batch was cut or when a request that it had looked at left the line; it never looks at more than `max_batch_size`
//! requests and one.

use super::config::DynamicConfig;
use crate::queue::{Entry, Key, Pending, Place};
use crate::request::ShapeKey;
use crate::scheduler::Room;

/// How far a walk needs to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the largest preferred size: what lies behind it cannot matter while the delay runs.
    Preferred,
    /// To `max_batch_size`: the delay is over, everything that fits goes.
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
    /// Requests up to the best cut.
    pub(super) best: Option<usize>,
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
                    if reach == Reach::Preferred {
                        return;
                    }
                }
                // It does not fit, or is of another shape: it closes the batch. What lies behind is not looked at.
                if total > config.max_batch_size() || entry.info.shape_key != self.shape {
                    self.closed = true;
                    return;
                }
            }
            self.cursor = Some(key);
            self.count += 1;
            self.total = self.total.saturating_add(size);
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

    /// A request left the line other than in a batch.
    pub(super) fn on_removed(&mut self, entry: &Entry) {
        if self.seen.is_some_and(|seen| entry.place <= seen) {
            *self = Self::default();
        }
    }
}
