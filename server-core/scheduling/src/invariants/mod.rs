//! What every scheduler promises, checked from outside: for simulations and tests.
//!
//! A [`Witness`] is told what was reported to a dispatcher and what it answered, and says what is wrong. It
//! shares no code with the schedulers but the reading of the configuration, and knows nothing of how they
//! came to their answers:
//!
//! * every request that was taken leaves exactly once: cancelled, expired, dropped with its sequence, or in a
//!   batch;
//! * a batch is not empty, not over the limit, of one shape, and not more than its instance can hold;
//! * nobody is overtaken: a batch is the head of the queue, by level, on time before late, then by arrival.
//!   So a level starves only behind those above it, as its policy says;
//! * no request runs after its end, expires before it, or is kept beyond it;
//! * the requests of a sequence run in their order, from START on, in one slot, which they share with nobody;
//!   with the oldest strategy one at a time.
//!
//! The cost of an event is a few operations on maps and sorted sets: around a million of events a second and
//! core.

mod chains;
mod line;

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::instances::InstanceId;
use crate::policy::Policies;
use crate::request::{RequestId, RequestInfo, ShapeKey};
use crate::scheduler::Refusal;
use crate::sequence::{Row, SequenceStep};
use crate::time::Time;
use chains::Chains;
use line::Line;

/// How requests are put into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Every request alone, however large.
    Single,
    /// Batches of the head of the queue.
    Dynamic,
    /// Sequences with a row for each slot.
    DirectSequences,
    /// Sequences, one request of each at a time.
    OldestSequences,
}

/// What the model's configuration promises.
#[derive(Clone, Debug)]
pub struct Rules {
    pub strategy: Strategy,
    /// In elements; for sequences also in rows.
    pub max_batch_size: u32,
    /// Of the dynamic batcher; the others have neither levels nor queue timeouts.
    pub policies: Policies,
    /// Requests that an instance may hold.
    pub max_in_flight: Option<usize>,
}

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{0:?} was taken though it waits already")]
    TakenTwice(RequestId),
    #[error("{0:?} was taken after close")]
    TakenAfterClose(RequestId),
    #[error("{0:?} was refused in spite of room")]
    RefusedInSpiteOfRoom(RequestId),
    #[error("{0:?} was taken though its level is full")]
    TakenThoughFull(RequestId),
    #[error("{0:?} left, but it does not wait")]
    LeftTwice(RequestId),
    #[error("an empty batch")]
    EmptyBatch,
    #[error("a batch of {size}, where {max} is the most")]
    TooLarge { size: u64, max: u32 },
    #[error("{0:?} is of another shape than its batch")]
    ShapesMixed(RequestId),
    #[error("{overtaken:?} was overtaken by {by:?}")]
    Overtaken { overtaken: RequestId, by: RequestId },
    #[error("{0:?} ran after its end")]
    RanTooLate(RequestId),
    #[error("{0:?} expired too early")]
    ExpiredTooEarly(RequestId),
    #[error("{0:?} is kept beyond its end")]
    KeptTooLong(RequestId),
    #[error("{0:?} holds more than it can")]
    HoldsTooMuch(InstanceId),
    #[error("{0:?} was reported as done, but it does not run")]
    NotRunning(RequestId),
    #[error("the rows do not fit the batch of {0:?}")]
    WrongRows(InstanceId),
    #[error("{0:?} was taken, but no sequence of its id has begun")]
    NotStarted(RequestId),
    #[error("{0:?} ran before the one before it in its sequence")]
    OutOfOrder(RequestId),
    #[error("{0:?} ran in another slot than the start of its sequence")]
    SlotChanged(RequestId),
    #[error("{0:?} ran in the slot of a sequence that is not over")]
    SlotShared(RequestId),
    #[error("{0:?} ran while another request of its slot was running")]
    TwoAtATime(RequestId),
    #[error("{0:?} ran after its sequence was cut")]
    RanAfterCut(RequestId),
    #[error("{0:?} was lost")]
    Lost(RequestId),
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    size: u32,
    shape_key: ShapeKey,
    level: u64,
    end: Option<Time>,
    late_at: Option<Time>,
    /// Its sequence.
    chain: u64,
    start: bool,
    end_of_sequence: bool,
}

/// Sees a dispatcher's history, event by event. Times must not go back.
#[derive(Debug)]
pub struct Witness {
    rules: Rules,
    waiting: HashMap<RequestId, Waiting, FixedState>,
    line: Line,
    chains: Chains,
    held: HashMap<InstanceId, usize, FixedState>,
    arrivals: u64,
    closed: bool,
}

type Checked = Result<(), Violation>;

impl Witness {
    pub fn new(mut rules: Rules) -> Self {
        if rules.strategy != Strategy::Dynamic {
            rules.policies = Policies::default();
        }
        let one_at_a_time = rules.strategy == Strategy::OldestSequences;
        Self {
            rules,
            waiting: HashMap::default(),
            line: Line::default(),
            chains: Chains::new(one_at_a_time),
            held: HashMap::default(),
            arrivals: 0,
            closed: false,
        }
    }

    /// Requests that wait.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_waiting(&self, id: RequestId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// A request was reported, and the dispatcher answered so. `step`: of a model with sequences.
    ///
    /// # Errors
    /// It was taken though it could not be, or refused though its level had room.
    pub fn on_arrival(
        &mut self,
        info: &RequestInfo,
        step: Option<&SequenceStep>,
        answer: &Result<(), Refusal>,
    ) -> Checked {
        let id = info.id;
        let level = self.rules.policies.level_of(info.priority);
        let policy = *self.rules.policies.policy_of(level);
        let max = policy.max_queue_size as usize;
        let full = max > 0 && self.line.len_of(level) >= max;
        if let Err(refusal) = answer {
            let room = matches!(refusal, Refusal::QueueFull { .. }) && !full;
            return if room { Err(Violation::RefusedInSpiteOfRoom(id)) } else { Ok(()) };
        }
        if self.closed && step.is_none_or(|step| step.start) {
            return Err(Violation::TakenAfterClose(id));
        }
        if full {
            return Err(Violation::TakenThoughFull(id));
        }
        let number = self.arrivals;
        self.arrivals += 1;
        let timeout = policy.timeout_us(info.timeout_us).map(|us| info.arrival.after_us(us));
        let (timeout, late_at) = match policy.timeout_action {
            crate::TimeoutAction::Reject => (timeout, None),
            crate::TimeoutAction::Delay => (None, timeout),
        };
        let end = info.deadline.into_iter().chain(timeout).min();
        let chain = match step {
            Some(step) => self.chains.on_arrival(id, step)?,
            None => 0,
        };
        let waiting = Waiting {
            number,
            size: info.size.max(1),
            shape_key: info.shape_key,
            level,
            end,
            late_at,
            chain,
            start: step.is_some_and(|step| step.start),
            end_of_sequence: step.is_some_and(|step| step.end),
        };
        if self.waiting.insert(id, waiting).is_some() {
            return Err(Violation::TakenTwice(id));
        }
        self.line.push(id, &waiting);
        Ok(())
    }

    /// A cancellation was answered with true.
    ///
    /// # Errors
    /// The request does not wait.
    pub fn on_cancelled(&mut self, id: RequestId) -> Checked {
        self.leave_early(id).map(drop)
    }

    /// The request was listed as expired.
    ///
    /// # Errors
    /// The request does not wait, or its end has not come.
    pub fn on_expired(&mut self, id: RequestId, now: Time) -> Checked {
        let gone = self.leave_early(id)?;
        if gone.end.is_some_and(|end| end <= now) { Ok(()) } else { Err(Violation::ExpiredTooEarly(id)) }
    }

    /// The request was listed as dropped with its sequence.
    ///
    /// # Errors
    /// The request does not wait.
    pub fn on_dropped(&mut self, id: RequestId) -> Checked {
        self.leave_early(id).map(drop)
    }

    /// A batch was handed out. `rows` are those of a model with sequences.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn on_batch(
        &mut self,
        instance: InstanceId,
        batch: &[RequestId],
        rows: &[Row],
        now: Time,
    ) -> Checked {
        let Some((first, _)) = batch.split_first() else { return Err(Violation::EmptyBatch) };
        let key = self.waiting.get(first).map(|first| first.shape_key).unwrap_or_default();
        let mut size = 0;
        for (n, &id) in batch.iter().enumerate() {
            if !self.in_slots() {
                let next = self.line.first(now);
                if let Some(next) = next.filter(|&next| next != id && self.is_waiting(id)) {
                    return Err(Violation::Overtaken { overtaken: next, by: id });
                }
            }
            let gone = self.leave(id)?;
            size += u64::from(gone.size);
            if gone.shape_key != key {
                return Err(Violation::ShapesMixed(id));
            }
            if gone.end.is_some_and(|end| end <= now) {
                return Err(Violation::RanTooLate(id));
            }
            if self.in_slots() {
                let row = rows.iter().filter(|row| row.request.is_some()).nth(n);
                let Some(row) = row.filter(|row| row.request == Some(id)) else {
                    return Err(Violation::WrongRows(instance));
                };
                if (row.start, row.end) != (gone.start, gone.end_of_sequence) {
                    return Err(Violation::WrongRows(instance));
                }
                self.chains.on_run(gone.chain, id, (instance, row.slot), gone.start)?;
            }
        }
        let max = match self.rules.strategy {
            Strategy::Single if batch.len() > 1 => 1,
            Strategy::Single => u32::MAX,
            _ => self.rules.max_batch_size.max(1),
        };
        let size = if self.rules.strategy == Strategy::Single { size.min(batch.len() as u64) } else { size };
        if size > u64::from(max) {
            return Err(Violation::TooLarge { size, max });
        }
        self.check_rows(instance, rows)?;
        let held = self.held.entry(instance).or_default();
        *held += batch.len();
        if self.rules.max_in_flight.is_some_and(|max| *held > max) {
            return Err(Violation::HoldsTooMuch(instance));
        }
        Ok(())
    }

    /// A request that this instance had was reported as done.
    ///
    /// # Errors
    /// The instance has nothing: a mistake of the simulation.
    pub fn on_done(&mut self, instance: InstanceId, id: RequestId) -> Checked {
        match self.held.get_mut(&instance) {
            Some(held) if *held > 0 => *held -= 1,
            _ => return Err(Violation::NotRunning(id)),
        }
        self.chains.on_done(id);
        Ok(())
    }

    /// An instance failed; its sequences cannot go on.
    pub fn on_instance_down(&mut self, instance: InstanceId) {
        self.chains.on_instance_down(instance);
    }

    pub fn on_close(&mut self) {
        self.closed = true;
    }

    /// Everything that was due at `now` has been carried out.
    ///
    /// # Errors
    /// A request is kept beyond its end.
    pub fn check_due(&self, now: Time) -> Checked {
        match self.line.first_end() {
            Some((end, id)) if end <= now => Err(Violation::KeptTooLong(id)),
            _ => Ok(()),
        }
    }

    /// Who is to be served first, without sequences.
    pub fn head(&mut self, now: Time) -> Option<RequestId> {
        self.line.first(now)
    }

    /// With sequences: a request that could run at once on this instance, if nobody waits for company there.
    pub fn next_in_slots(&self, instance: InstanceId) -> Option<RequestId> {
        self.chains.next_in_slots(instance)
    }

    /// When the next request expires; a dispatcher that sleeps must wake by then.
    pub fn next_end(&self) -> Option<Time> {
        self.line.first_end().map(|(end, _)| end)
    }

    /// The simulation is over, and everything should have left.
    ///
    /// # Errors
    /// A request still waits; the one that came first.
    pub fn check_empty(&self) -> Checked {
        let oldest = self.waiting.iter().min_by_key(|(_, waiting)| waiting.number);
        oldest.map_or(Ok(()), |(id, _)| Err(Violation::Lost(*id)))
    }

    fn in_slots(&self) -> bool {
        matches!(self.rules.strategy, Strategy::DirectSequences | Strategy::OldestSequences)
    }

    fn check_rows(&self, instance: InstanceId, rows: &[Row]) -> Checked {
        let max = self.rules.max_batch_size.max(1) as usize;
        let fits = match self.rules.strategy {
            Strategy::Single | Strategy::Dynamic => rows.is_empty(),
            Strategy::DirectSequences => {
                let null_is_blank = |row: &Row| row.request.is_some() || !(row.start || row.end);
                rows.len() <= max && rows.iter().zip(0..).all(|(row, n)| row.slot == n && null_is_blank(row))
            }
            Strategy::OldestSequences => rows.iter().all(|row| row.request.is_some()),
        };
        if fits { Ok(()) } else { Err(Violation::WrongRows(instance)) }
    }

    fn leave(&mut self, id: RequestId) -> Result<Waiting, Violation> {
        let gone = self.waiting.remove(&id).ok_or(Violation::LeftTwice(id))?;
        self.line.remove(id, &gone);
        Ok(gone)
    }

    fn leave_early(&mut self, id: RequestId) -> Result<Waiting, Violation> {
        let gone = self.leave(id)?;
        if self.in_slots() {
            self.chains.on_cut(gone.chain, id);
        }
        Ok(gone)
    }
}
