//! Who has which slot, who waits for one, and when a sequence ends.
//!
//! ```text
//!                 slot free                        END handed out, or over and nothing waits
//!   (START) ─▶ Backlog ─▶ Slot, open ─▶ Slot, over ─────────────────▶ (gone, slot free)
//!                 │            idle, END arrived, cut
//!                 └─▶ (gone) cut, timeout
//! ```
//! *Open* means that further requests of this id belong here. A sequence that is *over* keeps its slot until
//! what waits of it has run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};

use foldhash::fast::FixedState;
use slab::Slab;

use super::run::{Bench, HandedOn, Run, RunId, SlotRef, State, Step, alive, slot_of};
use super::{CorrelationId, DropReason, SequenceStep};
use crate::instances::InstanceId;
use crate::mutant::mutant;
use crate::queue::{Due, Pending};
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::Refusal;
use crate::time::Time;

/// A sweep of the alarms costs their number, so few are left alone.
const SWEEP_FROM: usize = 64;

#[derive(Debug)]
pub struct Book {
    pub(super) slots_per_instance: u32,
    idle_ns: u64,
    /// Every request that no instance has, in the order of arrival.
    pub(super) waiting: Pending,
    pub(super) owners: HashMap<RequestId, RunId, FixedState>,
    pub(super) runs: Slab<Run>,
    next_serial: u64,
    /// The open run of each id. Ids are made by clients, so the hash is keyed.
    open: HashMap<CorrelationId, RunId>,
    backlog: BTreeSet<RunId>,
    pub(super) free: BTreeSet<SlotRef>,
    pub(super) benches: BTreeMap<InstanceId, Bench>,
    /// The next time for each run at which it may be idle or have waited too long; wrong ones are known by
    /// the run.
    alarms: BinaryHeap<Reverse<(Time, RunId)>>,
    pub(super) handed_on: HashMap<RequestId, HandedOn, FixedState>,
    /// Slots of which a request may be handed on, in the order in which they became so.
    pub(super) stirred: Vec<SlotRef>,
    /// Requests that left after they were handed on.
    pub(super) recalled: Vec<HandedOn>,
    expired: Vec<RequestId>,
    pub(super) dropped: Vec<(RequestId, DropReason)>,
    closed: bool,
}

impl Book {
    pub(super) fn new(slots_per_instance: u32, idle_ns: u64) -> Self {
        Self {
            slots_per_instance,
            idle_ns,
            waiting: Pending::default(),
            owners: HashMap::default(),
            runs: Slab::new(),
            next_serial: 0,
            open: HashMap::new(),
            backlog: BTreeSet::new(),
            free: BTreeSet::new(),
            benches: BTreeMap::new(),
            alarms: BinaryHeap::new(),
            handed_on: HashMap::default(),
            stirred: Vec::new(),
            recalled: Vec::new(),
            expired: Vec::new(),
            dropped: Vec::new(),
            closed: false,
        }
    }

    // (new) -> waiting in a slot or in the backlog; else (new) -> refused
    pub(super) fn on_arrival(&mut self, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        let SequenceStep { correlation, start, end } = step;
        let now = info.arrival;
        self.settle(now);
        if info.size > 1 {
            return Err(Refusal::NotBatchOne { size: info.size });
        }
        if correlation.is_none() {
            return Err(Refusal::NoCorrelationId);
        }
        if correlation.is_too_long() {
            return Err(Refusal::CorrelationIdTooLong);
        }
        // A sequence that was begun may go on after close.
        if self.closed && start {
            return Err(Refusal::Closed);
        }
        let known = self.open.get(&correlation).copied();
        if known.is_none() && !start {
            return Err(Refusal::NotStarted);
        }
        self.waiting.push(info)?;
        let id = known.unwrap_or_else(|| self.begin(correlation, now));
        self.owners.insert(info.id, id);
        let Some(run) = alive(&mut self.runs, id) else { return Ok(()) };
        run.queue.push_back(Step { id: info.id, start, end });
        run.last = run.last.max(now);
        if run.at.is_none() {
            let timeout = info.timeout_us.filter(|&us| us > 0).map(|us| now.after_us(us));
            run.timeout = run.timeout.into_iter().chain(timeout).min();
        }
        if end {
            run.open = false;
            self.open.remove(&run.correlation);
        }
        if let Some(at) = run.at {
            self.stirred.push(at);
            self.refresh(at);
        }
        self.promote(now);
        self.arm(id);
        Ok(())
    }

    /// A request that waits leaves, and with it what is behind it in its sequence.
    // waiting -> cancelled
    pub(super) fn on_cancel(&mut self, id: RequestId) -> bool {
        let waits = self.waiting.remove(id).is_some();
        if waits && !mutant!("sequence-not-cut") {
            self.cut(id, DropReason::SequenceCancelled);
        }
        waits
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether the sequence of a request that waits has a slot.
    pub(super) fn has_slot(&self, id: RequestId) -> bool {
        let run = self.owners.get(&id).and_then(|owner| self.runs.get(owner.key));
        run.is_some_and(|run| run.at.is_some())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closed, nothing waits, and no sequence can go on.
    pub(super) fn is_over(&self) -> bool {
        self.closed && self.runs.is_empty() && self.waiting.len() == 0
    }

    /// Sequences that may go on.
    pub(super) fn open_sequences(&self) -> usize {
        self.open.len()
    }

    /// Does all that time has done up to `now`, in the order in which it was due.
    pub(super) fn settle(&mut self, now: Time) {
        while self.settle_one(now).is_some() {}
        self.promote(now);
    }

    /// Does the first thing that was due at `now` or before; when it was due.
    pub(super) fn settle_one(&mut self, now: Time) -> Option<Time> {
        let (deadline, alarm) = (self.waiting.next_deadline(), self.next_alarm());
        let due = deadline.into_iter().chain(alarm).min().filter(|&due| due <= now)?;
        if deadline == Some(due) {
            // waiting -> expired
            if let Some(Due::Expired(entry)) = self.waiting.pop_due(due) {
                self.expired.push(entry.info.id);
                self.cut(entry.info.id, DropReason::SequenceExpired);
            }
        } else if let Some(Reverse((_, id))) = self.alarms.pop() {
            self.on_alarm(id);
        }
        self.promote(due);
        Some(due)
    }

    /// As [`crate::Scheduler::next_deadline`].
    pub(super) fn next_due(&mut self) -> Option<Time> {
        // An arrival finds out who has expired before it, but has no place to list them.
        let unlisted = (!self.expired.is_empty()).then_some(Time::ZERO);
        unlisted.into_iter().chain(self.waiting.next_deadline()).chain(self.next_alarm()).min()
    }

    pub(super) fn take_expired(&mut self, expired: &mut Vec<RequestId>) {
        expired.append(&mut self.expired);
    }

    pub(super) fn take_dropped(&mut self, dropped: &mut Vec<(RequestId, DropReason)>) {
        dropped.append(&mut self.dropped);
    }

    /// The slots of `instance` in which a request waits, from the lowest, with that request.
    pub(super) fn ready(&self, instance: InstanceId) -> impl DoubleEndedIterator<Item = (u32, Step)> {
        let bench = self.benches.get(&instance);
        let slots = bench.into_iter().flat_map(|bench| bench.ready.iter().copied());
        slots.filter_map(move |slot| {
            let run = bench?.slots.get(slot as usize)?.run?;
            self.runs.get(run.key)?.queue.front().map(|step| (slot, *step))
        })
    }

    pub(super) fn ready_len(&self, instance: InstanceId) -> usize {
        self.benches.get(&instance).map_or(0, |bench| bench.ready.len())
    }

    pub(super) fn info(&self, id: RequestId) -> Option<&RequestInfo> {
        self.waiting.get(id)
    }

    /// Takes the next request of a slot. `hold`: none other of it until [`Self::on_done`].
    // waiting in a slot -> handed on; END: slot -> free
    pub(super) fn pop(&mut self, at: SlotRef, hold: bool) -> Option<Step> {
        let slot = self.benches.get_mut(&at.instance)?.slots.get_mut(at.slot as usize)?;
        if slot.held.is_some() {
            return None;
        }
        let run = alive(&mut self.runs, slot.run?)?;
        let back = mutant!("sequence-out-of-order");
        let step = if back { run.queue.pop_back() } else { run.queue.pop_front() }?;
        if hold {
            slot.held = Some(step.id);
            self.handed_on.insert(step.id, HandedOn { at, step });
        }
        self.refresh(at);
        if step.end {
            self.release(at);
        }
        Some(step)
    }

    /// An instance has this request now.
    pub(super) fn dispatched(&mut self, id: RequestId) {
        self.waiting.remove(id);
        self.owners.remove(&id);
    }

    pub(super) fn handed_on(&self, id: RequestId) -> Option<HandedOn> {
        self.handed_on.get(&id).copied()
    }

    /// A request that was handed on is done. The next of its slot may follow.
    pub(super) fn on_done(&mut self, id: RequestId) {
        if let Some(done) = self.handed_on.remove(&id) {
            self.let_go(done.at);
        }
    }

    // (new) -> backlog, open
    fn begin(&mut self, correlation: CorrelationId, now: Time) -> RunId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let id = RunId { serial, key: self.runs.vacant_key() };
        self.open.insert(correlation.clone(), id);
        let queue = VecDeque::new();
        self.runs.insert(Run {
            serial,
            correlation,
            open: true,
            queue,
            at: None,
            last: now,
            timeout: None,
            alarm: None,
        });
        self.backlog.insert(id);
        id
    }

    // backlog -> slot, as long as there are free slots: the sequence that waits longest to the lowest slot
    pub(super) fn promote(&mut self, now: Time) {
        while let (Some(&at), Some(&id)) = (self.free.first(), self.backlog.first()) {
            self.backlog.remove(&id);
            let Some(run) = alive(&mut self.runs, id) else { continue };
            self.free.remove(&at);
            run.at = Some(at);
            run.timeout = None;
            // The idle time does not run in the backlog.
            run.last = run.last.max(now);
            if let Some(slot) = slot_of(&mut self.benches, at) {
                slot.run = Some(id);
            }
            self.stirred.push(at);
            self.refresh(at);
            self.arm(id);
        }
    }

    /// The queue of this slot's run has changed, or whether it is open or held.
    // over, nothing waits -> gone
    fn refresh(&mut self, at: SlotRef) {
        let Some(bench) = self.benches.get_mut(&at.instance) else { return };
        let Some(slot) = bench.slots.get(at.slot as usize) else { return };
        let held = slot.held.is_some();
        let run = slot.run.and_then(|id| alive(&mut self.runs, id));
        let waits = run.as_ref().is_some_and(|run| !run.queue.is_empty());
        if waits {
            bench.ready.insert(at.slot);
        } else {
            bench.ready.remove(&at.slot);
            if run.is_some_and(|run| !run.open) && !held {
                self.release(at);
            }
        }
    }

    /// The run of this slot is gone.
    pub(super) fn release(&mut self, at: SlotRef) {
        let Some(bench) = self.benches.get_mut(&at.instance) else { return };
        let Some(slot) = bench.slots.get_mut(at.slot as usize) else { return };
        if let Some(id) = slot.run.take() {
            bench.ready.remove(&at.slot);
            if bench.state == State::Up && !mutant!("leaked-slot") {
                self.free.insert(at);
            }
            self.forget_run(id);
        }
    }

    fn forget_run(&mut self, id: RunId) {
        self.shut(id);
        if alive(&mut self.runs, id).is_some() {
            self.runs.remove(id.key);
        }
        if self.alarms.len() > SWEEP_FROM && self.alarms.len() / 2 > self.runs.len() {
            let runs = &self.runs;
            let rings = |time, id: RunId| {
                runs.get(id.key).is_some_and(|run| run.serial == id.serial && run.alarm == Some(time))
            };
            self.alarms.retain(|&Reverse((time, id))| rings(time, id));
        }
    }

    // open -> over
    fn shut(&mut self, id: RunId) {
        let Some(run) = alive(&mut self.runs, id) else { return };
        run.open = false;
        if self.open.get(&run.correlation) == Some(&id) {
            self.open.remove(&run.correlation);
        }
    }

    /// A request left while it waited: its sequence is over, what was behind it leaves, in the backlog all of
    /// it.
    fn cut(&mut self, id: RequestId, reason: DropReason) {
        let Some(run_id) = self.owners.remove(&id) else { return };
        let recalled = self.handed_on.remove(&id);
        if let Some(run) = alive(&mut self.runs, run_id) {
            let (at, before) = (run.at, self.dropped.len());
            while let Some(step) = run.queue.pop_back() {
                if step.id != id {
                    self.waiting.remove(step.id);
                    self.owners.remove(&step.id);
                    self.dropped.push((step.id, reason));
                } else if at.is_some() {
                    break;
                }
            }
            // In their order.
            if let Some(dropped) = self.dropped.get_mut(before..) {
                dropped.reverse();
            }
            self.shut(run_id);
            match at {
                Some(at) => self.refresh(at),
                None => {
                    self.backlog.remove(&run_id);
                    self.forget_run(run_id);
                }
            }
        }
        if let Some(recalled) = recalled {
            self.recalled.push(recalled);
            self.let_go(recalled.at);
        }
    }

    fn let_go(&mut self, at: SlotRef) {
        if let Some(slot) = slot_of(&mut self.benches, at) {
            slot.held = None;
        }
        self.stirred.push(at);
        self.refresh(at);
    }

    // slot, open -> over: idle; backlog -> gone: waited too long
    fn on_alarm(&mut self, id: RunId) {
        let Some(run) = alive(&mut self.runs, id) else { return };
        run.alarm = None;
        if let Some(at) = run.at {
            if mutant!("idle-forgotten") {
                return;
            }
            self.shut(id);
            self.refresh(at);
            return;
        }
        for step in std::mem::take(&mut run.queue) {
            self.drop_waiting(step.id, DropReason::SequenceExpired);
        }
        self.backlog.remove(&id);
        self.forget_run(id);
    }

    /// Sets the alarm of a run if it has to ring earlier than it is set. A later one is set when the earlier
    /// rings.
    fn arm(&mut self, id: RunId) {
        let idle_ns = self.idle_ns;
        let Some(run) = alive(&mut self.runs, id) else { return };
        let Some(due) = run.due(idle_ns) else { return };
        if run.alarm.is_none_or(|alarm| due < alarm) {
            run.alarm = Some(due);
            self.alarms.push(Reverse((due, id)));
        }
    }

    /// The time of the next alarm, which is then on top.
    fn next_alarm(&mut self) -> Option<Time> {
        while let Some(&Reverse((time, id))) = self.alarms.peek() {
            if let Some(run) = alive(&mut self.runs, id).filter(|run| run.alarm == Some(time)) {
                let due = run.due(self.idle_ns);
                if due == Some(time) {
                    return due;
                }
                run.alarm = due;
                self.alarms.pop();
                self.alarms.extend(due.map(|due| Reverse((due, id))));
            } else {
                self.alarms.pop();
            }
        }
        None
    }
}
