//! Instances come and go, and with them their slots.
//!
//! ```text
//!            failed              retired
//!   Up ◀────────────▶ Down   any ────────▶ Retiring
//!           is back
//! ```
//! Only an instance that is up gets new sequences. One that is retiring ends those it has; one that fails
//! loses them.

use std::collections::BTreeSet;

use super::DropReason;
use super::book::Book;
use super::run::{Bench, Slot, SlotRef, State, alive, slot_of};
use crate::instances::InstanceId;
use crate::mutant::mutant;
use crate::request::RequestId;

impl Book {
    // (new) -> up
    pub(super) fn on_instance_added(&mut self, instance: InstanceId) {
        let slots = (0..self.slots_per_instance).map(|_| Slot::default()).collect();
        self.benches.insert(instance, Bench { state: State::Up, slots, ready: BTreeSet::new() });
        self.free.extend((0..self.slots_per_instance).map(|slot| SlotRef { slot, instance }));
    }

    // down -> up
    pub(super) fn on_instance_up(&mut self, instance: InstanceId) {
        if let Some(bench) = self.benches.get_mut(&instance).filter(|bench| bench.state == State::Down) {
            bench.state = State::Up;
            self.free.extend((0..self.slots_per_instance).map(|slot| SlotRef { slot, instance }));
        }
    }

    /// Its sequences are lost.
    // up -> down; retiring -> retiring
    pub(super) fn on_instance_down(&mut self, instance: InstanceId) {
        let Some(bench) = self.benches.get_mut(&instance) else { return };
        if bench.state == State::Up {
            bench.state = State::Down;
        }
        self.free.retain(|free| free.instance != instance);
        for slot in 0..if mutant!("runs-without-state") { 0 } else { self.slots_per_instance } {
            self.lose(SlotRef { slot, instance });
        }
    }

    // up, down -> retiring
    pub(super) fn on_instance_retired(&mut self, instance: InstanceId) {
        if let Some(bench) = self.benches.get_mut(&instance) {
            bench.state = State::Retiring;
        }
        self.free.retain(|free| free.instance != instance);
    }

    /// Whether a slot of this instance has a sequence.
    pub(super) fn holds(&self, instance: InstanceId) -> bool {
        let holds = |slot: &Slot| slot.run.is_some() || slot.held.is_some();
        self.benches.get(&instance).is_some_and(|bench| bench.slots.iter().any(holds))
    }

    /// The sequence of this slot is lost with its instance.
    fn lose(&mut self, at: SlotRef) {
        let Some(slot) = slot_of(&mut self.benches, at) else { return };
        // What an instance has is its caller's to report.
        if let Some(held) = slot.held.filter(|id| self.owners.contains_key(id)) {
            slot.held = None;
            self.recalled.extend(self.handed_on.remove(&held));
            self.drop_waiting(held, DropReason::InstanceLost);
        }
        let Some(run) = slot_of(&mut self.benches, at).and_then(|slot| slot.run) else { return };
        let steps = alive(&mut self.runs, run).map(|run| std::mem::take(&mut run.queue)).unwrap_or_default();
        for step in steps {
            self.drop_waiting(step.id, DropReason::InstanceLost);
        }
        self.release(at);
    }

    pub(super) fn drop_waiting(&mut self, id: RequestId, reason: DropReason) {
        self.waiting.remove(id);
        self.owners.remove(&id);
        self.dropped.push((id, reason));
    }
}
