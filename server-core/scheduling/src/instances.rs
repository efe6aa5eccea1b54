//! Which instances can take work.
//!
//! ```text
//!            dispatched                 on_instance_down
//!   Free ────────────────▶ Busy     any ────────────────▶ Down
//!    ▲ ◀──────────────────┘                                │
//!    │     on_instance_free (execute returned)             │
//!    └─────────────────────────────────────────────────────┘ on_instance_free (replaced)
//! ```
//! Unfinished requests are counted beside the state: a request is finished when its last answer is sent, which may be
//! long after `execute` returned. An instance that declares how many requests it may hold takes work only while it is
//! free and holds fewer; without the declaration only the state counts.

use std::num::NonZeroU32;

use crate::mutant::mutant;
use crate::scheduler::Room;

/// An instance's index within its model version, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

impl InstanceId {
    pub(crate) fn nth(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Busy,
    Down,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    max_in_flight: Option<NonZeroU32>,
    /// It is to be removed and gets nothing new.
    retiring: bool,
    unfinished: usize,
    /// The number of the last dispatch to it; the longest idle instance has the smallest.
    last_dispatch: u64,
}

impl Slot {
    fn room(&self) -> usize {
        match self.max_in_flight {
            Some(max) => (max.get() as usize).saturating_sub(self.unfinished),
            None => usize::MAX,
        }
    }
}

/// The instances of a model version. An event of an instance that does not exist has no effect.
#[derive(Clone, Debug, Default)]
pub struct InstanceSlots {
    slots: Vec<Slot>,
    dispatches: u64,
    free: usize,
    unfinished: usize,
}

impl InstanceSlots {
    /// `count` free instances alike. `max_in_flight` counts requests, not batch elements.
    pub fn new(count: u32, max_in_flight: Option<NonZeroU32>) -> Self {
        let mut slots = Self::default();
        (0..count).for_each(|_| {
            slots.add(max_in_flight);
        });
        slots
    }

    /// One more free instance.
    pub fn add(&mut self, max_in_flight: Option<NonZeroU32>) -> InstanceId {
        let id = InstanceId::nth(self.slots.len());
        self.slots.push(Slot {
            state: State::Free,
            max_in_flight,
            retiring: false,
            unfinished: 0,
            last_dispatch: 0,
        });
        self.free += 1;
        id
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Requests handed to instances and not finished.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Requests handed to this instance and not finished.
    pub fn unfinished_of(&self, instance: InstanceId) -> usize {
        self.slots.get(instance.0 as usize).map_or(0, |slot| slot.unfinished)
    }

    /// The instance to serve next and its room: the one with the most room, among equals the longest idle.
    pub fn pick(&self) -> Option<(InstanceId, Room)> {
        if self.free == 0 {
            return None;
        }
        let can_take = |slot: &&Slot| {
            slot.state == State::Free && slot.room() > 0 && (!slot.retiring || mutant!("retired-gets-work"))
        };
        let (slot, id) = self
            .slots
            .iter()
            .zip(0..)
            .filter(|(slot, _)| can_take(slot))
            .min_by_key(|(slot, id)| (std::cmp::Reverse(slot.room()), slot.last_dispatch, *id))?;
        Some((InstanceId(id), Room(slot.room())))
    }

    /// How much this instance can take now; none if it is not free or full.
    pub fn room_of(&self, instance: InstanceId) -> Option<Room> {
        let slot = self.slots.get(instance.0 as usize)?;
        (slot.state == State::Free && slot.room() > 0).then(|| Room(slot.room()))
    }

    /// Whether this instance failed and is not back.
    pub fn is_down(&self, instance: InstanceId) -> bool {
        self.slots.get(instance.0 as usize).is_some_and(|slot| slot.state == State::Down)
    }

    /// [`Self::pick`] leaves this instance out from now on; it is to be removed.
    pub fn retire(&mut self, instance: InstanceId) {
        if let Some(slot) = self.slots.get_mut(instance.0 as usize) {
            slot.retiring = true;
        }
    }

    pub fn is_retiring(&self, instance: InstanceId) -> bool {
        self.slots.get(instance.0 as usize).is_some_and(|slot| slot.retiring)
    }

    // Free -> Busy, holding `requests` more
    pub fn on_dispatched(&mut self, instance: InstanceId, requests: usize) {
        self.dispatches += 1;
        let number = self.dispatches;
        self.set(instance, State::Busy);
        if let Some(slot) = self.slots.get_mut(instance.0 as usize) {
            slot.last_dispatch = number;
            slot.unfinished += requests;
            self.unfinished += requests;
        }
    }

    // Busy | Down -> Free
    pub fn on_instance_free(&mut self, instance: InstanceId) {
        self.set(instance, State::Free);
    }

    // any -> Down: it gets no work until it reports free again
    pub fn on_instance_down(&mut self, instance: InstanceId) {
        if !mutant!("down-gets-work") {
            self.set(instance, State::Down);
        }
    }

    /// One request that this instance held has had its last answer. False if it held none: a caller's mistake.
    pub fn on_request_finished(&mut self, instance: InstanceId) -> bool {
        match self.slots.get_mut(instance.0 as usize) {
            Some(slot) if slot.unfinished > 0 => {
                slot.unfinished -= usize::from(!mutant!("leaked-room"));
                self.unfinished -= 1;
                true
            }
            _ => false,
        }
    }

    fn set(&mut self, instance: InstanceId, state: State) {
        let Some(slot) = self.slots.get_mut(instance.0 as usize) else {
            return;
        };
        self.free -= usize::from(slot.state == State::Free);
        self.free += usize::from(state == State::Free);
        slot.state = state;
    }
}
