//! The order within sequences, and their slots.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::Violation;
use crate::instances::InstanceId;
use crate::request::RequestId;
use crate::sequence::{CorrelationId, SequenceStep};

type SlotName = (InstanceId, u32);

/// What belongs together from one START to the next of the same id. A scheduler may go on with the next chain
/// in the same slot or in another.
#[derive(Debug, Default)]
struct Chain {
    waiting: VecDeque<RequestId>,
    slot: Option<SlotName>,
    ended: bool,
    /// A request left early, or the instance was lost: those behind may not run.
    cut_at: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Chains {
    one_at_a_time: bool,
    next: u64,
    chains: HashMap<u64, Chain, FixedState>,
    latest: HashMap<CorrelationId, u64>,
    /// The chain that ran last in a slot.
    slots: BTreeMap<SlotName, u64>,
    /// With the slot; only if a slot has one at a time.
    running: HashMap<RequestId, SlotName, FixedState>,
    busy: BTreeMap<SlotName, RequestId>,
}

impl Chains {
    pub(super) fn new(one_at_a_time: bool) -> Self {
        Self {
            one_at_a_time,
            next: 0,
            chains: HashMap::default(),
            latest: HashMap::new(),
            slots: BTreeMap::new(),
            running: HashMap::default(),
            busy: BTreeMap::new(),
        }
    }

    /// The chain that a request which was taken belongs to.
    pub(super) fn on_arrival(&mut self, id: RequestId, step: &SequenceStep) -> Result<u64, Violation> {
        let number = if step.start {
            self.next += 1;
            if let Some(before) = self.latest.insert(step.correlation.clone(), self.next) {
                if let Some(before) = self.chains.get_mut(&before) {
                    before.ended = true;
                }
                self.forget_if_over(before);
            }
            self.chains.insert(self.next, Chain::default());
            self.next
        } else {
            *self.latest.get(&step.correlation).ok_or(Violation::NotStarted(id))?
        };
        let chain = self.chains.get_mut(&number).ok_or(Violation::NotStarted(id))?;
        if chain.ended || chain.cut_at.is_some() {
            return Err(Violation::NotStarted(id));
        }
        chain.waiting.push_back(id);
        if step.end {
            chain.ended = true;
            self.latest.remove(&step.correlation);
        }
        Ok(number)
    }

    pub(super) fn on_run(
        &mut self,
        number: u64,
        id: RequestId,
        slot: SlotName,
        start: bool,
    ) -> Result<(), Violation> {
        let before = self.slots.insert(slot, number);
        if let Some(before) = before.filter(|&before| before != number) {
            let waits = self.chains.get(&before).is_some_and(|chain| !chain.waiting.is_empty());
            if !start || waits {
                return Err(Violation::SlotShared(id));
            }
            self.forget_if_over(before);
        }
        let Some(chain) = self.chains.get_mut(&number) else { return Err(Violation::NotStarted(id)) };
        if chain.cut_at == Some(0) {
            return Err(Violation::RanAfterCut(id));
        }
        if chain.waiting.pop_front() != Some(id) {
            return Err(Violation::OutOfOrder(id));
        }
        chain.cut_at = chain.cut_at.map(|at| at - 1);
        if chain.slot.is_some_and(|of| of != slot) || (chain.slot.is_none() && !start) {
            return Err(Violation::SlotChanged(id));
        }
        chain.slot = Some(slot);
        if self.one_at_a_time {
            if self.busy.insert(slot, id).is_some() {
                return Err(Violation::TwoAtATime(id));
            }
            self.running.insert(id, slot);
        }
        Ok(())
    }

    /// A request left early: what is behind it has to leave too.
    pub(super) fn on_cut(&mut self, number: u64, id: RequestId) {
        let Some(chain) = self.chains.get_mut(&number) else { return };
        if let Some(at) = chain.waiting.iter().position(|waiting| *waiting == id) {
            chain.waiting.remove(at);
            chain.cut_at = Some(chain.cut_at.map_or(at, |cut| cut.min(at)));
        }
        self.forget_if_over(number);
    }

    pub(super) fn on_done(&mut self, id: RequestId) {
        if let Some(slot) = self.running.remove(&id) {
            self.busy.remove(&slot);
        }
    }

    pub(super) fn on_instance_down(&mut self, instance: InstanceId) {
        let of = (instance, 0)..=(instance, u32::MAX);
        for (_, number) in self.slots.range(of) {
            if let Some(chain) = self.chains.get_mut(number) {
                chain.cut_at = Some(0);
            }
        }
    }

    /// A request that is next in its slot of this instance, with nothing of that slot running before it.
    pub(super) fn next_in_slots(&self, instance: InstanceId) -> Option<RequestId> {
        let of = (instance, 0)..=(instance, u32::MAX);
        let slots = self.slots.range(of).filter(|(slot, _)| !self.busy.contains_key(*slot));
        slots.filter_map(|(_, number)| self.chains.get(number)?.waiting.front()).next().copied()
    }

    /// A chain that can neither run nor go on needs no memory.
    fn forget_if_over(&mut self, number: u64) {
        let over = |chain: &Chain| chain.waiting.is_empty() && (chain.ended || chain.cut_at.is_some());
        let in_slot = |chain: &Chain| chain.slot.is_some_and(|slot| self.slots.get(&slot) == Some(&number));
        if self.chains.get(&number).is_some_and(|chain| over(chain) && !in_slot(chain)) {
            self.chains.remove(&number);
        }
    }
}
