//! The earliest deadline of a line. Entries that left stay in the heap until they reach its top or are swept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::line::{Key, Line, Place};
use crate::time::Time;

/// A sweep costs the length of the heap, so small heaps are left alone.
const SWEEP_FROM: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    time: Time,
    /// Of equal deadlines the older request's is first.
    number: u64,
    place: Place,
    pub(super) key: Key,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<Deadline>>,
    /// How many in the heap still wait.
    waiting: usize,
}

impl Deadlines {
    /// The next deadline of the entry that has this key in `line`.
    pub(super) fn push(&mut self, time: Time, key: Key, line: &Line) {
        let Some(entry) = line.get(key) else { return };
        self.heap.push(Reverse(Deadline { time, number: entry.number, place: entry.place, key }));
        self.waiting += 1;
    }

    /// An entry with a deadline has left `line`. Most requests leave long before their deadline, so the heap is swept
    /// when less than half of it still waits: constant cost for each request that leaves, memory bounded by the line.
    pub(super) fn one_left(&mut self, line: &Line) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.heap.len() > SWEEP_FROM && self.heap.len() / 2 > self.waiting {
            self.heap.retain(|Reverse(deadline)| line.holds(deadline.key, deadline.place));
        }
    }

    /// The earliest deadline of an entry that still waits in `line`.
    pub(super) fn earliest(&mut self, line: &Line) -> Option<Time> {
        while let Some(Reverse(first)) = self.heap.peek() {
            if line.holds(first.key, first.place) {
                return Some(first.time);
            }
            self.heap.pop();
        }
        None
    }

    /// The top of the heap, which waits if [`Self::earliest`] was just called.
    pub(super) fn first(&self) -> Option<&Deadline> {
        self.heap.peek().map(|Reverse(first)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pending;
    use super::SWEEP_FROM;
    use crate::request::{RequestId, RequestInfo, ShapeKey};
    use crate::time::Time;

    #[test]
    fn deadlines_of_requests_that_left_do_not_pile_up() {
        let mut queue = Pending::default();
        for n in 0..100_000 {
            let mut info = RequestInfo::new(RequestId(n), ShapeKey(0), Time(n));
            info.deadline = Some(Time(n + 60_000_000_000));
            assert!(queue.push(info).is_ok());
            if n >= 10 {
                assert_eq!(queue.pop_front().map(|entry| entry.info.id), Some(RequestId(n - 10)));
            }
            assert!(queue.deadlines.heap.len() <= SWEEP_FROM + 1);
        }
        assert_eq!(queue.next_deadline(), Some(Time(99_990 + 60_000_000_000)));
    }

    #[test]
    fn a_key_used_again_does_not_inherit_a_deadline() {
        let mut queue = Pending::default();
        let mut info = RequestInfo::new(RequestId(1), ShapeKey(0), Time(0));
        info.deadline = Some(Time(5));
        assert!(queue.push(info).is_ok());
        assert!(queue.remove(RequestId(1)).is_some());
        assert!(queue.push(RequestInfo::new(RequestId(2), ShapeKey(0), Time(1))).is_ok());
        assert_eq!(queue.next_deadline(), None);
        assert!(queue.pop_due(Time(10)).is_none());
    }
}
