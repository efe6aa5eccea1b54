//! The strategy that serves the oldest: a dynamic batcher behind the slots of each instance.

use std::collections::BTreeMap;

use super::book::Book;
use super::bound::{Sequences, Strategy};
use super::{OldestSequenceConfig, Row, SequenceStep};
use crate::dynamic::Dynamic;
use crate::instances::InstanceId;
use crate::mutant::mutant;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room, Scheduler};
use crate::time::Time;

/// Of each sequence that has a slot, at most one request at a time is handed on to its instance's batcher,
/// which follows the rules of [`Dynamic`]; the next one follows when that request is done. The batcher's
/// delay counts from there. A slot is given to the next sequence when the END is handed on.
pub type OldestSequences = Sequences<OldestStrategy>;

#[derive(Debug)]
pub struct OldestStrategy {
    config: OldestSequenceConfig,
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
        Self { book, strategy: OldestStrategy { config, batchers: BTreeMap::new() } }
    }
}

impl OldestStrategy {
    /// Keeps the batchers in step with the book.
    fn hand_on(&mut self, book: &mut Book, now: Time) {
        for recalled in std::mem::take(&mut book.recalled) {
            if let Some(batcher) = self.batchers.get_mut(&recalled.at.instance) {
                batcher.queue.on_cancel(recalled.step.id);
            }
        }
        while !book.stirred.is_empty() {
            for at in std::mem::take(&mut book.stirred) {
                // waiting in a slot -> waiting in the batcher
                let Some(step) = book.pop(at, !mutant!("two-at-a-time")) else { continue };
                let Some(info) = book.info(step.id) else { continue };
                let handed = RequestInfo::new(info.id, info.shape_key, now);
                if let Some(batcher) = self.batchers.get_mut(&at.instance) {
                    // It cannot refuse: it is never closed, and has neither levels nor limits.
                    let _ = batcher.queue.on_arrival(handed);
                }
                // END: slot -> free -> the next sequence, which stirs again
                if step.end {
                    book.promote(now);
                }
            }
        }
    }
}

impl Strategy for OldestStrategy {
    fn on_arrival(&mut self, book: &mut Book, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        // What was to be done before it came is done before.
        self.settle(book, info.arrival);
        let answer = book.on_arrival(info, step);
        self.hand_on(book, info.arrival);
        answer
    }

    fn settle(&mut self, book: &mut Book, now: Time) {
        while let Some(due) = book.settle_one(now) {
            self.hand_on(book, due);
        }
        book.promote(now);
        self.hand_on(book, now);
    }

    // waiting in the batcher -> batch
    fn take_batch(
        &mut self,
        book: &mut Book,
        instance: InstanceId,
        now: Time,
        room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask {
        let Some(batcher) = self.batchers.get_mut(&instance) else {
            return Ask::empty(book.is_over());
        };
        let before = batch.len();
        let ask = batcher.queue.take_batch(instance, now, room, batch);
        if ask == Ask::Idle {
            return Ask::empty(book.is_over());
        }
        if let Some(ids) = batch.get(before..).filter(|ids| !ids.is_empty()) {
            batcher.rows.clear();
            for &id in ids {
                book.dispatched(id);
                if let Some(row) = book.handed_on(id) {
                    let (slot, step) = (row.at.slot, row.step);
                    batcher.rows.push(Row { slot, request: Some(id), start: step.start, end: step.end });
                }
            }
        }
        ask
    }

    fn rows(&self, instance: InstanceId) -> &[Row] {
        self.batchers.get(&instance).map_or(&[], |batcher| batcher.rows.as_slice())
    }

    fn on_close(&mut self) {
        self.batchers.values_mut().for_each(|batcher| batcher.queue.wait_no_more());
    }

    fn on_done(&mut self, book: &mut Book, id: RequestId) {
        book.on_done(id);
    }

    fn on_instance_added(&mut self, book: &Book, instance: InstanceId) {
        let mut queue = Dynamic::new(self.config.batching.clone());
        if book.is_closed() {
            queue.wait_no_more();
        }
        self.batchers.insert(instance, Batcher { queue, rows: Vec::new() });
    }
}
