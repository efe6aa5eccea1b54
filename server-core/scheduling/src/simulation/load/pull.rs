//! Instances that ask for work, and who is woken when.

use std::mem;

use super::{Call, Checked, Load, State};
use crate::instances::InstanceId;
use crate::request::RequestId;
use crate::scheduler::Ask;
use crate::simulation::event::At;
use crate::simulation::finding::Finding;
use crate::simulation::ledger::Ledger;
use crate::time::Time;

impl Load {
    pub(super) fn call(&mut self, call: Call) {
        let mut idle = self.instances.iter_mut().filter(|of| of.state == State::Free && !of.woken);
        match call {
            Call::Nobody => {}
            Call::One => {
                if let Some(of) = idle.next() {
                    of.woken = true;
                }
            }
            Call::All => idle.for_each(|of| of.woken = true),
        }
    }

    /// Every instance that was woken asks, and the alarm rings if it is time.
    pub(super) fn ask(&mut self, now: Time, ledger: &mut Ledger) -> Checked {
        // Every batch may wake all.
        let mut rounds = 64 + 2 * (self.pending() + 1) * (self.instances.len() + 1);
        loop {
            rounds -= 1;
            if rounds == 0 {
                return Err(Finding::AsksForEver(self.number));
            }
            let may_ring = self.rings || self.bound;
            if self.dispatcher.next_deadline().is_some_and(|next| may_ring && next <= now) {
                let mut expired = mem::take(&mut self.expired);
                self.dispatcher.expire(now, &mut expired);
                self.take_expired(&mut expired, now, ledger)?;
                self.expired = expired;
                self.take_dropped(ledger)?;
                if self.bound || self.closed {
                    self.call(Call::All);
                }
            }
            let mut woken = self.instances.iter_mut().zip(0..);
            let Some((of, n)) = woken.find(|(of, _)| of.woken) else { break };
            of.woken = false;
            if of.state == State::Free {
                self.ask_of(n, now, ledger)?;
            }
        }
        let timers = self.instances.iter().filter(|of| of.state == State::Free).filter_map(|of| of.timer);
        self.wake = timers.chain(self.dispatcher.next_deadline()).min();
        Ok(())
    }

    pub(super) fn ask_of(&mut self, n: u32, now: Time, ledger: &mut Ledger) -> Checked {
        let instance = InstanceId(n);
        let (mut batch, mut expired) = (mem::take(&mut self.batch), mem::take(&mut self.expired));
        let ask = self.dispatcher.take_batch(instance, now, &mut batch, &mut expired);
        let left = !expired.is_empty();
        self.take_expired(&mut expired, now, ledger)?;
        let left = self.take_dropped(ledger)? || left;
        let said = if let Ask::Batch(len) = ask { len } else { 0 };
        if said != batch.len() {
            return Err(Finding::OtherThanSaid(At { model: self.number, instance: n }));
        }
        if matches!(ask, Ask::Batch(_)) {
            self.on_batch(instance, &batch, now, ledger)?;
        }
        batch.clear();
        (self.batch, self.expired) = (batch, expired);
        let mut timer = None;
        match ask {
            Ask::Batch(_) => {}
            Ask::Idle => {}
            Ask::WakeAt(time) => timer = Some(time),
            Ask::Closed => self.on_told_closed(n)?,
        }
        if let Some(of) = self.instances.get_mut(n as usize) {
            of.timer = timer;
        }
        // What this one leaves behind is for the next.
        if ask == Ask::Closed || (self.bound && (left || matches!(ask, Ask::Batch(_)))) {
            self.call(Call::All);
        } else if (left || matches!(ask, Ask::Batch(_))) && self.pending() > 0 {
            self.call(if self.plan.in_flight > 0 { Call::All } else { Call::One });
        }
        Ok(())
    }

    pub(super) fn on_told_closed(&mut self, n: u32) -> Checked {
        let at = At { model: self.number, instance: n };
        let Some(of) = self.instances.get_mut(n as usize) else { return Ok(()) };
        if of.retiring {
            of.retired |= of.running.is_empty();
        } else if !self.closed || self.witness.pending() > 0 || self.dispatcher.open_sequences() > 0 {
            return Err(Finding::ClosedTooEarly(at));
        }
        of.state = State::Ended;
        Ok(())
    }

    pub(super) fn take_expired(
        &mut self,
        expired: &mut Vec<RequestId>,
        now: Time,
        ledger: &mut Ledger,
    ) -> Checked {
        for id in expired.drain(..) {
            self.witness.on_expired(id, now)?;
            self.leave(id, ledger)?;
        }
        Ok(())
    }

    /// Whether any were dropped.
    pub(super) fn take_dropped(&mut self, ledger: &mut Ledger) -> Result<bool, Finding> {
        if !self.bound {
            return Ok(false);
        }
        let mut dropped = mem::take(&mut self.dropped);
        self.dispatcher.take_dropped(&mut dropped);
        let any = !dropped.is_empty();
        for (id, _) in dropped.drain(..) {
            self.witness.on_dropped(id)?;
            self.leave(id, ledger)?;
        }
        self.dropped = dropped;
        Ok(any)
    }
}
