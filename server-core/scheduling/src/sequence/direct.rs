//! The direct strategy: a sequence has its row in every batch of its instance.

use super::book::Book;
use super::bound::{Sequences, Strategy};
use super::run::SlotRef;
use super::{DirectSequenceConfig, Row, SequenceStep};
use crate::instances::InstanceId;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room};
use crate::start::StartAfter;
use crate::time::Time;

/// Forms a batch when an instance asks, by these rules:
///
/// 1. The batch has a row for each slot of the instance, from the first to the last in which a request waits.
/// 2. A row has the next request of its slot if that may run with the request of the lowest row; else, and
///    where none waits, it is a null request. What is left out waits for the next execution.
/// 3. If the configuration has both a delay and a least utilization, the batch waits until enough slots have
///    a request, or the oldest of these requests has waited so long.
///
/// An instance that can hold only some of the requests takes those of the lowest slots. After
/// [`close`](crate::Scheduler::close) rule 3 does not wait.
pub type DirectSequences = Sequences<DirectStrategy>;

#[derive(Debug)]
pub struct DirectStrategy {
    config: DirectSequenceConfig,
    /// The rows of the last batch of each instance.
    rows: Vec<Vec<Row>>,
    /// What has to arrive before the first batch.
    start: StartAfter,
}

impl DirectSequences {
    pub fn new(config: DirectSequenceConfig) -> Self {
        let book = Book::new(config.slots, config.idle_ns);
        let start = config.start_after;
        Self { book, strategy: DirectStrategy { config, rows: Vec::new(), start } }
    }
}

impl DirectStrategy {
    /// Until when the requests of `instance` wait for company.
    fn waits_until(&self, book: &Book, instance: InstanceId, now: Time, room: Room) -> Option<Time> {
        let delay = self.config.max_queue_delay_ns;
        let ready = book.ready_len(instance);
        if delay == 0 || ready >= self.config.enough as usize || ready >= room.0 || book.is_closed() {
            return None;
        }
        let arrivals = book.ready(instance).filter_map(|(_, step)| book.info(step.id));
        let until = arrivals.map(|info| info.arrival).min()?.after_ns(delay);
        (until > now).then_some(until)
    }
}

impl Strategy for DirectStrategy {
    fn on_arrival(&mut self, book: &mut Book, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        let answer = book.on_arrival(info, step);
        book.stirred.clear();
        if answer.is_ok() && self.start.waits() {
            match book.has_slot(info.id) {
                true => self.start.one_queued(),
                false => self.start.one_in_backlog(),
            }
        }
        answer
    }

    fn settle(&mut self, book: &mut Book, now: Time) {
        book.settle(now);
        // Only a strategy that hands requests on has a use for these.
        book.stirred.clear();
    }

    // waiting in slots -> batch
    fn take_batch(
        &mut self,
        book: &mut Book,
        instance: InstanceId,
        now: Time,
        room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask {
        let Some((last, _)) = book.ready(instance).next_back() else {
            return Ask::empty(book.is_over());
        };
        if self.start.waits() && !book.is_closed() {
            return Ask::Idle;
        }
        if let Some(until) = self.waits_until(book, instance, now, room) {
            return Ask::WakeAt(until);
        }
        let index = instance.0 as usize;
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, Vec::new);
        }
        let Some(rows) = self.rows.get_mut(index) else { return Ask::Idle };
        rows.clear();
        rows.extend((0..=last).map(|slot| Row { slot, request: None, start: false, end: false }));

        let mut key = None;
        for (slot, step) in book.ready(instance).take(room.0) {
            let Some(info) = book.info(step.id) else { continue };
            if *key.get_or_insert(info.shape_key) == info.shape_key
                && let Some(row) = rows.get_mut(slot as usize)
            {
                *row = Row { slot, request: Some(step.id), start: step.start, end: step.end };
            }
        }
        let before = batch.len();
        for row in rows.iter() {
            if let Some(id) = row.request {
                book.pop(SlotRef { slot: row.slot, instance }, false);
                book.dispatched(id);
                batch.push(id);
            }
        }
        // A slot that became free takes the next sequence, whose first request is for the next execution.
        book.settle(now);
        Ask::Batch(batch.len() - before)
    }

    fn rows(&self, instance: InstanceId) -> &[Row] {
        self.rows.get(instance.0 as usize).map_or(&[], Vec::as_slice)
    }
}
