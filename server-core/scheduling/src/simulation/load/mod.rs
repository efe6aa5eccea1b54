//! One load of the model: its dispatcher, its instances, and those who look on.
//!
//! ```text
//!   push   every event is followed by a poll, and so is the time at which it asked to be woken
//!   pull   instances that are free ask; who was told to wait is woken as the documentation of
//!          [`Dispatcher`] says, at the time it was told, and by the alarm for the next deadline
//! ```

mod checks;
mod pull;

use std::mem;

use super::event::At;
use super::finding::Finding;
use super::ledger::{Ledger, Started};
use super::order::Ordered;
use super::plan::{Plan, PlanError};
use crate::instances::InstanceId;
use crate::invariants::Witness;
use crate::request::{RequestId, RequestInfo};
use crate::sequence::{DropReason, SequenceStep};
use crate::time::Time;
use crate::{Actions, Dispatcher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// With pull: it waits, perhaps until a time.
    Free,
    Busy,
    Down,
    /// Its thread was told that all is over.
    Ended,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) state: State,
    retiring: bool,
    retired: bool,
    /// Pull: until when it waits.
    timer: Option<Time>,
    woken: bool,
    pub(super) running: Vec<RequestId>,
}

/// Who has to be woken, with pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Nobody,
    One,
    All,
}

#[derive(Debug)]
pub(super) struct Load {
    pub(super) number: u32,
    pub(super) plan: Plan,
    pub(super) instances: Vec<Instance>,
    pub(super) closed: bool,
    pub(super) ordered: Option<Ordered>,
    dispatcher: Dispatcher,
    witness: Witness,
    bound: bool,
    /// Something happened since it was polled.
    pub(super) dirty: bool,
    /// The alarm is on time, or it is its late time.
    rings: bool,
    /// Who waited and could not be cancelled.
    not_cancelled: Vec<RequestId>,
    wake: Option<Time>,
    running: usize,
    actions: Actions,
    batch: Vec<RequestId>,
    expired: Vec<RequestId>,
    dropped: Vec<(RequestId, DropReason)>,
}

type Checked = Result<(), Finding>;

impl Load {
    /// # Errors
    /// The configuration is refused.
    pub(super) fn new(number: u32, plan: Plan) -> Result<Self, PlanError> {
        let dispatcher = plan.dispatcher()?;
        let mut load = Self {
            number,
            instances: Vec::new(),
            closed: false,
            ordered: plan.ordered.then(Ordered::default),
            bound: dispatcher.is_bound(),
            dispatcher,
            witness: Witness::new(plan.rules()?),
            dirty: false,
            rings: plan.late == 0,
            not_cancelled: Vec::new(),
            wake: None,
            running: 0,
            actions: Actions::new(),
            batch: Vec::new(),
            expired: Vec::new(),
            dropped: Vec::new(),
            plan,
        };
        (0..load.plan.instances).for_each(|_| load.push_instance());
        Ok(load)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.wake.map(|wake| wake.after_us(self.plan.late * 1_000))
    }

    pub(super) fn pending(&self) -> usize {
        self.witness.pending()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn is_drained(&self) -> bool {
        self.dispatcher.is_drained()
    }

    /// Reports an arrival. Whether it was taken; the caller enters it into the ledger before it settles.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn on_arrival(
        &mut self,
        info: &RequestInfo,
        step: Option<&SequenceStep>,
        ledger: &mut Ledger,
    ) -> Result<bool, Finding> {
        let answer = match step {
            Some(step) => self.dispatcher.on_sequence_arrival(*info, step.clone()),
            None => self.dispatcher.on_arrival(*info),
        };
        // Some may have left before this one came.
        self.take_dropped(ledger)?;
        let step = step.filter(|_| self.bound);
        self.witness.on_arrival(info, step, &answer)?;
        if let Err(refusal) = answer {
            self.check_refusal(info, step, refusal)?;
        }
        Ok(answer.is_ok())
    }

    /// After one or more arrivals that were taken.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn settle_arrivals(&mut self, taken: u32, now: Time, ledger: &mut Ledger) -> Checked {
        // One for each. If instances may be full, only waking all is sure to reach one that is not.
        if self.plan.pull && !self.bound && self.plan.in_flight == 0 {
            (0..taken).for_each(|_| self.call(Call::One));
            return self.settle(Call::Nobody, now, ledger);
        }
        self.settle(if taken > 0 { Call::All } else { Call::Nobody }, now, ledger)
    }

    /// # Errors
    /// A promise was not kept.
    pub(super) fn on_cancel(&mut self, id: RequestId, now: Time, ledger: &mut Ledger) -> Checked {
        let cancelled = self.dispatcher.on_cancel(id);
        if cancelled {
            self.witness.on_cancelled(id)?;
            let entry = ledger.answer(id)?;
            if let Some(ordered) = &mut self.ordered {
                ordered.on_done(entry.place)?;
            }
        } else if self.witness.is_waiting(id) {
            // It may have left unseen; then it is listed before anybody runs.
            self.not_cancelled.push(id);
        }
        self.settle(if self.closed { Call::All } else { Call::Nobody }, now, ledger)
    }

    /// The last answer of a request that runs.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn on_done(
        &mut self,
        instance: InstanceId,
        id: RequestId,
        now: Time,
        ledger: &mut Ledger,
    ) -> Checked {
        let place = ledger.answer(id)?.place;
        if let Some(of) = self.instances.get_mut(instance.0 as usize) {
            of.running.retain(|running| *running != id);
        }
        self.running -= 1;
        let known = if self.bound {
            self.dispatcher.on_request_done(instance, id)
        } else {
            self.dispatcher.on_request_finished(instance)
        };
        self.check_running(known)?;
        self.witness.on_done(instance, id)?;
        self.on_answer(id, place, true)?;
        let full = self.plan.in_flight > 0 && self.pending() > 0;
        self.settle(if full || self.closed { Call::All } else { Call::Nobody }, now, ledger)
    }

    /// # Errors
    /// A promise was not kept.
    pub(super) fn on_answer(&mut self, id: RequestId, place: u64, last: bool) -> Checked {
        self.ordered.as_mut().map_or(Ok(()), |ordered| ordered.on_answer(id.0, place, last))
    }

    // Busy | Down -> Free
    pub(super) fn on_free(&mut self, instance: InstanceId, now: Time, ledger: &mut Ledger) -> Checked {
        if let Some(of) = self.instances.get_mut(instance.0 as usize) {
            (of.state, of.woken, of.timer) = (State::Free, true, None);
        }
        if !self.plan.pull {
            self.dispatcher.on_instance_free(instance);
        }
        self.settle(Call::Nobody, now, ledger)
    }

    // any -> Down
    pub(super) fn on_down(&mut self, instance: InstanceId, now: Time, ledger: &mut Ledger) -> Checked {
        if let Some(of) = self.instances.get_mut(instance.0 as usize) {
            (of.state, of.timer) = (State::Down, None);
        }
        self.dispatcher.on_instance_down(instance);
        self.witness.on_instance_down(instance);
        self.settle(Call::All, now, ledger)
    }

    pub(super) fn on_retire(&mut self, instance: InstanceId, now: Time, ledger: &mut Ledger) -> Checked {
        if let Some(of) = self.instances.get_mut(instance.0 as usize) {
            of.retiring = true;
        }
        self.dispatcher.retire_instance(instance);
        self.settle(Call::All, now, ledger)
    }

    pub(super) fn on_add(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        self.dispatcher.add_instance(self.plan.max_in_flight());
        self.push_instance();
        if let Some(of) = self.instances.last_mut() {
            of.woken = true;
        }
        self.settle(Call::Nobody, now, ledger)
    }

    pub(super) fn on_close(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        self.closed = true;
        self.dispatcher.close();
        self.witness.on_close();
        self.settle(Call::All, now, ledger)
    }

    /// The time has come at which it wanted to be woken.
    pub(super) fn on_wake(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        for of in &mut self.instances {
            of.woken |= of.timer.is_some_and(|timer| timer <= now);
        }
        self.rings = true;
        let settled = self.settle_now(Call::Nobody, now, ledger);
        self.rings = self.plan.late == 0;
        settled
    }

    /// All of this instant has happened.
    pub(super) fn flush(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        if self.dirty { self.settle_now(Call::Nobody, now, ledger) } else { Ok(()) }
    }

    /// Whether an instance is left that can take everything.
    pub(super) fn has_usable_instance(&self) -> bool {
        self.instances.iter().any(|of| !of.retiring && matches!(of.state, State::Free | State::Busy))
    }

    /// # Errors
    /// Something is left.
    pub(super) fn check_end(&mut self) -> Checked {
        self.witness.check_empty()?;
        self.check_gauges()?;
        if !self.dispatcher.is_drained() || self.ordered.as_ref().is_some_and(|ordered| !ordered.is_empty()) {
            return Err(Finding::DoesNotDrain(self.number));
        }
        for (of, n) in self.instances.iter().zip(0..) {
            if of.retiring && !self.dispatcher.is_retired(InstanceId(n)) {
                return Err(Finding::NotRetired(At { model: self.number, instance: n }));
            }
        }
        Ok(())
    }

    fn push_instance(&mut self) {
        self.instances.push(Instance {
            state: State::Free,
            retiring: false,
            retired: false,
            timer: None,
            woken: false,
            running: Vec::new(),
        });
    }

    fn settle(&mut self, call: Call, now: Time, ledger: &mut Ledger) -> Checked {
        self.dirty = self.plan.lazy;
        if self.dirty { Ok(()) } else { self.settle_now(call, now, ledger) }
    }

    fn settle_now(&mut self, call: Call, now: Time, ledger: &mut Ledger) -> Checked {
        self.dirty = false;
        if self.plan.pull {
            // A request for one particular instance may have been set free by anything.
            self.call(if self.bound { Call::All } else { call });
            self.take_dropped(ledger)?;
            self.ask(now, ledger)?;
        } else {
            self.poll(now, ledger)?;
        }
        self.check(now, ledger)
    }

    fn poll(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        let mut actions = mem::take(&mut self.actions);
        self.dispatcher.poll(now, &mut actions);
        for &id in &actions.expired {
            self.witness.on_expired(id, now)?;
            self.leave(id, ledger)?;
        }
        for &(id, _) in &actions.dropped {
            self.witness.on_dropped(id)?;
            self.leave(id, ledger)?;
        }
        for (instance, batch) in actions.batches() {
            self.on_batch(instance, batch, now, ledger)?;
        }
        self.wake = actions.wake;
        self.actions = actions;
        Ok(())
    }

    /// A request is answered with an error without having run.
    fn leave(&mut self, id: RequestId, ledger: &mut Ledger) -> Checked {
        let place = ledger.answer(id)?.place;
        self.on_answer(id, place, true)
    }

    fn on_batch(
        &mut self,
        instance: InstanceId,
        batch: &[RequestId],
        now: Time,
        ledger: &mut Ledger,
    ) -> Checked {
        let rows = self.dispatcher.rows(instance);
        self.witness.on_batch(instance, batch, rows, now)?;
        let at = At { model: self.number, instance: instance.0 };
        let Some(of) = self.instances.get_mut(instance.0 as usize) else {
            return Err(Finding::BatchWhileDown(at));
        };
        match of.state {
            State::Free if of.retired => return Err(Finding::BatchAfterRetired(at)),
            State::Free if of.retiring && !self.bound => return Err(Finding::BatchWhileRetiring(at)),
            State::Free => {}
            State::Busy => return Err(Finding::BatchWhileBusy(at)),
            State::Down | State::Ended => return Err(Finding::BatchWhileDown(at)),
        }
        of.state = State::Busy;
        of.running.extend_from_slice(batch);
        self.running += batch.len();
        let from = ledger.ids.len();
        for &id in batch {
            ledger.run(id, self.number, instance)?;
            ledger.ids.push(id);
        }
        ledger.batches += 1;
        ledger.batched += batch.len() as u64;
        ledger.started.push(Started { at, now, from, to: ledger.ids.len() });
        Ok(())
    }

    /// Of those that run, any one.
    pub(super) fn any_running(&self) -> Option<(InstanceId, RequestId)> {
        let mut instances = self.instances.iter().zip(0..);
        instances.find_map(|(of, n)| of.running.first().map(|id| (InstanceId(n), *id)))
    }
}

pub(super) fn millis(time: Time) -> u64 {
    time.0 / 1_000_000
}
