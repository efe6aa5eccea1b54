//! What both strategies are to the dispatcher: a book, and a rule by which batches are cut from it.

use std::fmt::Debug;

use super::book::Book;
use super::{DropReason, Row, SequenceStep};
use crate::instances::InstanceId;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::{Ask, Refusal, Room, Scheduler};
use crate::time::Time;

/// What a strategy decides. All else is the book's.
pub trait Strategy: Debug + Send {
    /// As [`Scheduler::on_sequence_arrival`]. What was due before has not been done yet.
    fn on_arrival(&mut self, book: &mut Book, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal>;

    /// Does what is due at `now`.
    fn settle(&mut self, book: &mut Book, now: Time);

    /// As [`Scheduler::take_batch`].
    fn take_batch(
        &mut self,
        book: &mut Book,
        instance: InstanceId,
        now: Time,
        room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask;

    /// As [`Scheduler::rows`].
    fn rows(&self, instance: InstanceId) -> &[Row];

    /// Nothing more comes.
    fn on_close(&mut self) {}

    /// A request that was in a batch has had its last answer.
    fn on_done(&mut self, _book: &mut Book, _id: RequestId) {}

    /// There is one more instance, which the book does not know yet.
    fn on_instance_added(&mut self, _book: &Book, _instance: InstanceId) {}
}

/// The scheduler of a model of sequences.
#[derive(Debug)]
pub struct Sequences<S> {
    pub(super) book: Book,
    pub(super) strategy: S,
}

impl<S: Strategy> Scheduler for Sequences<S> {
    fn on_arrival(&mut self, _info: RequestInfo) -> Result<(), Refusal> {
        Err(Refusal::NoCorrelationId)
    }

    fn on_sequence_arrival(&mut self, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        self.strategy.on_arrival(&mut self.book, info, step)
    }

    fn on_cancel(&mut self, id: RequestId) -> bool {
        self.book.on_cancel(id)
    }

    fn on_request_done(&mut self, id: RequestId) {
        self.strategy.on_done(&mut self.book, id);
    }

    fn close(&mut self) {
        self.book.close();
        self.strategy.on_close();
    }

    fn is_closed(&self) -> bool {
        self.book.is_closed()
    }

    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        self.strategy.settle(&mut self.book, now);
        self.book.take_expired(expired);
    }

    fn take_batch(&mut self, instance: InstanceId, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask {
        self.strategy.take_batch(&mut self.book, instance, now, room, batch)
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
        self.strategy.rows(instance)
    }

    fn open_sequences(&self) -> usize {
        self.book.open_sequences()
    }

    fn take_dropped(&mut self, dropped: &mut Vec<(RequestId, DropReason)>) {
        self.book.take_dropped(dropped);
    }

    fn on_instance_added(&mut self, instance: InstanceId) {
        self.strategy.on_instance_added(&self.book, instance);
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
