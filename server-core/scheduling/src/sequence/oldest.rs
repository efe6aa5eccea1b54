//! The strategy that serves the oldest: a dynamic batcher behind the slots of each instance.

use std::collections::BTreeMap;

use super::book::Book;
use super::{DropReason, OldestSequenceConfig, Row, SequenceStep};
use crate::dynamic::Dynamic;
use crate::instances::InstanceId;
use crate::mutant::mutant;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room, Scheduler};
use crate::time::Time;

/// Of each sequence that has a slot, at most one request at a time is handed on to its instance's batcher,
/// which follows the rules of [`Dynamic`]; the next one follows when that request is done. The batcher's
/// delay counts from there. A slot is given to the next sequence when the END is handed on.
#[derive(Debug)]
pub struct OldestSequences {
    config: OldestSequenceConfig,
    book: Book,
    batchers: BTreeMap<InstanceId, Batcher>,
}

#[derive(Debug)]
struct Batcher {
    queue: Dynamic,
    /// The rows of its last batch.
    rows: Vec<Row>,
}

impl OldestSequences {
    pub fn new(config: OldestSequenceConfig) -> Self {
        let book = Book::new(config.slots, config.idle_ns);
        Self { config, book, batchers: BTreeMap::new() }
    }

    fn settle(&mut self, now: Time) {
        while let Some(due) = self.book.settle_one(now) {
            self.hand_on(due);
        }
        self.book.promote(now);
        self.hand_on(now);
    }

    /// Keeps the batchers in step with the book.
    fn hand_on(&mut self, now: Time) {
        for recalled in std::mem::take(&mut self.book.recalled) {
            if let Some(batcher) = self.batchers.get_mut(&recalled.at.instance) {
                batcher.queue.on_cancel(recalled.step.id);
            }
        }
        while !self.book.stirred.is_empty() {
            for at in std::mem::take(&mut self.book.stirred) {
                // waiting in a slot -> waiting in the batcher
                let Some(step) = self.book.pop(at, !mutant!("two-at-a-time")) else { continue };
                let Some(info) = self.book.info(step.id) else { continue };
                let handed = RequestInfo::new(info.id, info.shape_key, now);
                if let Some(batcher) = self.batchers.get_mut(&at.instance) {
                    // It cannot refuse: it is never closed, and has neither levels nor limits.
                    let _ = batcher.queue.on_arrival(handed);
                }
                // END: slot -> free -> the next sequence, which stirs again
                if step.end {
                    self.book.promote(now);
                }
            }
        }
    }
}

impl Scheduler for OldestSequences {
    fn on_arrival(&mut self, _info: RequestInfo) -> Result<(), Refusal> {
        Err(Refusal::NoCorrelationId)
    }

    fn on_sequence_arrival(&mut self, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        // What was to be done before it came is done before.
        self.settle(info.arrival);
        let answer = self.book.on_arrival(info, step);
        self.hand_on(info.arrival);
        answer
    }

    fn on_cancel(&mut self, id: RequestId) -> bool {
        self.book.on_cancel(id)
    }

    fn on_request_done(&mut self, id: RequestId) {
        self.book.on_done(id);
    }

    fn close(&mut self) {
        self.book.close();
        self.batchers.values_mut().for_each(|batcher| batcher.queue.wait_no_more());
    }

    fn is_closed(&self) -> bool {
        self.book.is_closed()
    }

    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        self.settle(now);
        self.book.take_expired(expired);
    }

    // waiting in the batcher -> batch
    fn take_batch(&mut self, instance: InstanceId, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask {
        let Some(batcher) = self.batchers.get_mut(&instance) else {
            return Ask::empty(self.book.is_over());
        };
        let before = batch.len();
        let ask = batcher.queue.take_batch(instance, now, room, batch);
        if ask == Ask::Idle {
            return Ask::empty(self.book.is_over());
        }
        if let Some(ids) = batch.get(before..).filter(|ids| !ids.is_empty()) {
            batcher.rows.clear();
            for &id in ids {
                self.book.dispatched(id);
                if let Some(row) = self.book.handed_on(id) {
                    let (slot, step) = (row.at.slot, row.step);
                    batcher.rows.push(Row { slot, request: Some(id), start: step.start, end: step.end });
                }
            }
        }
        ask
    }

    fn next_deadline(&mut self) -> Option<Time> {
        self.book.next_due()
    }

    fn pending(&self) -> usize {
        self.book.waiting.len()
    }

    fn oldest_arrival(&self) -> Option<Time> {
        self.book.waiting.oldest_arrival()
    }

    fn is_bound(&self) -> bool {
        true
    }

    fn rows(&self, instance: InstanceId) -> &[Row] {
        self.batchers.get(&instance).map_or(&[], |batcher| batcher.rows.as_slice())
    }

    fn open_sequences(&self) -> usize {
        self.book.open_sequences()
    }

    fn take_dropped(&mut self, dropped: &mut Vec<(RequestId, DropReason)>) {
        self.book.take_dropped(dropped);
    }

    fn on_instance_added(&mut self, instance: InstanceId) {
        let mut queue = Dynamic::new(self.config.batching.clone());
        if self.book.is_closed() {
            queue.wait_no_more();
        }
        self.batchers.insert(instance, Batcher { queue, rows: Vec::new() });
        self.book.on_instance_added(instance);
    }

    fn on_instance_up(&mut self, instance: InstanceId) {
        self.book.on_instance_up(instance);
    }

    fn on_instance_down(&mut self, instance: InstanceId) {
        self.book.on_instance_down(instance);
    }

    fn on_instance_retired(&mut self, instance: InstanceId) {
        self.book.on_instance_retired(instance);
    }

    fn holds(&self, instance: InstanceId) -> bool {
        self.book.holds(instance)
    }
}
