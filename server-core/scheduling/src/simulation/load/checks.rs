//! What has to be true of a load, beside what its witness knows.

use super::{Checked, Instance, Load, State, millis};
use crate::instances::InstanceId;
use crate::request::{RequestId, RequestInfo};
use crate::scheduler::Refusal;
use crate::sequence::SequenceStep;
use crate::simulation::finding::Finding;
use crate::simulation::ledger::{Ledger, State as Fate};
use crate::time::Time;

impl Load {
    pub(super) fn check_refusal(
        &self,
        info: &RequestInfo,
        step: Option<&SequenceStep>,
        refusal: Refusal,
    ) -> Checked {
        let has_reason = match refusal {
            Refusal::Closed => self.closed && step.is_none_or(|step| step.start),
            Refusal::TooLarge { .. } => self.plan.kind.max_size().is_some_and(|max| info.size > max),
            Refusal::DuplicateId => false,
            // The witness knows better.
            Refusal::QueueFull { .. } => true,
            Refusal::NotBatchOne { .. } => self.bound && info.size > 1,
            Refusal::NoCorrelationId => self.bound && step.is_none(),
            Refusal::CorrelationIdTooLong => false,
            Refusal::NotStarted => step.is_some_and(|step| !step.start),
        };
        if has_reason { Ok(()) } else { Err(Finding::RefusedWithoutReason { request: info.id.0, refusal }) }
    }

    /// All that has to be true whenever everything was carried out.
    pub(super) fn check(&mut self, now: Time, ledger: &Ledger) -> Checked {
        self.check_gauges()?;
        let overdue = self.plan.pull && !self.bound && !self.rings;
        if overdue && self.wake.is_some_and(|wake| wake <= now) {
            // Who is to ask, or the alarm, is late; then is time enough.
            return Ok(());
        }
        self.witness.check_due(now)?;
        let stays = |id: &RequestId| ledger.get(id.0).state != Fate::Answered;
        if let Some(id) = self.not_cancelled.drain(..).find(stays) {
            return Err(Finding::NotCancelled(id.0));
        }
        let (model, wake) = (self.number, self.wake);
        if let Some(wake) = wake.filter(|wake| *wake <= now) {
            return Err(Finding::WakeNotLater { model, wake: millis(wake) });
        }
        if let Some(end) = self.witness.next_end()
            && wake.is_none_or(|wake| wake > end)
        {
            return Err(Finding::SleepsOverEnd { model, end: millis(end) });
        }
        for (of, n) in self.instances.iter_mut().zip(0..) {
            if of.retiring && !of.retired {
                of.retired = self.dispatcher.is_retired(InstanceId(n));
            }
        }
        self.check_nobody_idles(now, ledger)
    }

    /// Nobody waits longer than the delay while an instance could take it.
    pub(super) fn check_nobody_idles(&mut self, now: Time, ledger: &Ledger) -> Checked {
        let Some(delay) = self.plan.head_delay() else { return self.check_no_slot_idles() };
        if self.witness.pending() == 0 || !self.instances.iter().any(|of| self.could_take(of)) {
            return Ok(());
        }
        let Some(head) = self.witness.head(now) else { return Ok(()) };
        let delay = if self.closed { 0 } else { delay };
        let until = ledger.get(head.0).arrival.after_us(delay * 1_000);
        let (model, request) = (self.number, head.0);
        if until <= now {
            return Err(Finding::IdleBesideWork { model, request });
        }
        if self.wake.is_none_or(|wake| wake > until) {
            return Err(Finding::SleepsOverDelay { model, request, until: millis(until) });
        }
        Ok(())
    }

    /// The same with sequences: whose turn it is in a slot runs, unless it is to wait for company.
    pub(super) fn check_no_slot_idles(&self) -> Checked {
        if self.witness.pending() == 0 || !(self.closed || self.plan.never_waits()) {
            return Ok(());
        }
        for (of, n) in self.instances.iter().zip(0..) {
            let room = self.plan.in_flight == 0 || of.running.len() < self.plan.in_flight as usize;
            if of.state == State::Free
                && room
                && let Some(next) = self.witness.next_in_slots(InstanceId(n))
            {
                return Err(Finding::IdleBesideWork { model: self.number, request: next.0 });
            }
        }
        Ok(())
    }

    pub(super) fn could_take(&self, of: &Instance) -> bool {
        let room = self.plan.in_flight == 0 || of.running.len() < self.plan.in_flight as usize;
        of.state == State::Free && !of.retiring && room
    }

    pub(super) fn check_gauges(&self) -> Checked {
        let (model, said, waiting) = (self.number, self.dispatcher.pending(), self.witness.pending());
        if said != waiting {
            return Err(Finding::PendingGauge { model, said, waiting });
        }
        self.check_running(true)
    }

    pub(super) fn check_running(&self, known: bool) -> Checked {
        let (model, said, running) = (self.number, self.dispatcher.instances().unfinished(), self.running);
        if known && said == running { Ok(()) } else { Err(Finding::RunningGauge { model, said, running }) }
    }
}
