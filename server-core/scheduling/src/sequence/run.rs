//! Sequences and slots, the entries of the book.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slab::Slab;

use super::CorrelationId;
use crate::instances::InstanceId;
use crate::request::RequestId;
use crate::time::Time;

/// A slot of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotRef {
    // The slot first: free slots are taken in this order.
    pub(super) slot: u32,
    pub(super) instance: InstanceId,
}

/// One sequence from its START to its end. The serial is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunId {
    pub(super) serial: u64,
    pub(super) key: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) id: RequestId,
    pub(super) start: bool,
    pub(super) end: bool,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) serial: u64,
    pub(super) correlation: CorrelationId,
    /// Further requests of this id belong to it.
    pub(super) open: bool,
    pub(super) queue: VecDeque<Step>,
    /// None: in the backlog.
    pub(super) at: Option<SlotRef>,
    /// The idle time counts from here.
    pub(super) last: Time,
    /// When it leaves the backlog.
    pub(super) timeout: Option<Time>,
    /// The time of its valid alarm.
    pub(super) alarm: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) run: Option<RunId>,
    /// The request handed on of this slot, if the strategy allows one at a time.
    pub(super) held: Option<RequestId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Down,
    /// It ends what it has begun.
    Retiring,
}

/// The slots of one instance.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) slots: Vec<Slot>,
    /// Slots in which a request waits.
    pub(super) ready: BTreeSet<u32>,
}

/// A request that was handed on of its slot and is not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOn {
    pub(super) at: SlotRef,
    pub(super) step: Step,
}

impl Run {
    /// When it is idle for too long, or has waited too long in the backlog.
    pub(super) fn due(&self, idle_ns: u64) -> Option<Time> {
        match self.at {
            Some(_) => self.open.then(|| self.last.after_ns(idle_ns)),
            None => self.timeout,
        }
    }
}

pub(super) fn alive(runs: &mut Slab<Run>, id: RunId) -> Option<&mut Run> {
    runs.get_mut(id.key).filter(|run| run.serial == id.serial)
}

pub(super) fn slot_of(benches: &mut BTreeMap<InstanceId, Bench>, at: SlotRef) -> Option<&mut Slot> {
    benches.get_mut(&at.instance)?.slots.get_mut(at.slot as usize)
}
