//! Requests in the order in which they are served: lanes of doubly linked lists in one slab, so that an entry
//! leaves from the middle as cheaply as from the head.
//!
//! ```text
//!   lane (1, on time): A ⇄ D          served first
//!   lane (1, late):    C
//!   lane (2, on time): B ⇄ E ⇄ F      served last
//!   age:               A ⇄ B ⇄ C ⇄ D ⇄ E ⇄ F
//! ```

use std::num::NonZeroU32;

use slab::Slab;

use crate::request::RequestInfo;
use crate::time::Time;

/// Where an entry lies. Reused after the entry left; with its [`Place`] it is unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(NonZeroU32);

impl Key {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// One list of the line. Lanes are served in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) level: u64,
    /// The timeout of those in this lane has passed.
    pub(super) late: bool,
}

/// An entry's rank: places grow from the first to be served to the last, and are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(super) lane: Lane,
    number: u64,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) info: RequestInfo,
    pub(crate) place: Place,
    /// Its number in the order of arrival.
    pub(super) number: u64,
    /// When it moves to the late lane of its level.
    pub(super) late_at: Option<Time>,
    in_lane: Links,
    in_age: Links,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    prev: Option<Key>,
    next: Option<Key>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    head: Option<Key>,
    tail: Option<Key>,
    len: usize,
}

/// `links` says which of an entry's two lists is meant.
impl Chain {
    fn push_back(&mut self, entries: &mut Slab<Entry>, key: Key, links: impl Fn(&mut Entry) -> &mut Links) {
        match self.tail.and_then(|tail| entries.get_mut(tail.index())) {
            Some(last) => links(last).next = Some(key),
            None => self.head = Some(key),
        }
        if let Some(entry) = entries.get_mut(key.index()) {
            *links(entry) = Links { prev: self.tail, next: None };
        }
        self.tail = Some(key);
        self.len += 1;
    }

    /// Takes out the entry that has these links.
    fn remove(&mut self, entries: &mut Slab<Entry>, old: Links, links: impl Fn(&mut Entry) -> &mut Links) {
        match old.prev.and_then(|prev| entries.get_mut(prev.index())) {
            Some(prev) => links(prev).next = old.next,
            None => self.head = old.next,
        }
        match old.next.and_then(|next| entries.get_mut(next.index())) {
            Some(next) => links(next).prev = old.prev,
            None => self.tail = old.prev,
        }
        self.len -= 1;
    }
}

fn in_lane(entry: &mut Entry) -> &mut Links {
    &mut entry.in_lane
}

fn in_age(entry: &mut Entry) -> &mut Links {
    &mut entry.in_age
}

#[derive(Debug, Default)]
pub(crate) struct Line {
    entries: Slab<Entry>,
    /// In their order; all but the only one are not empty.
    lanes: Vec<(Lane, Chain)>,
    /// By arrival; only kept if the lanes are not in that order anyhow.
    age: Option<Chain>,
    next_number: u64,
}

impl Line {
    /// `reorders`: entries may be put into more than one lane.
    pub(super) fn new(reorders: bool) -> Self {
        Self { age: reorders.then(Chain::default), ..Self::default() }
    }

    /// Puts a new entry at the end of its level. None if there is no room in 32 bits.
    pub(super) fn push_back(
        &mut self,
        info: RequestInfo,
        level: u64,
        late_at: Option<Time>,
    ) -> Option<(Key, Place)> {
        let place = self.new_place(Lane { level, late: false });
        let slot = self.entries.vacant_entry();
        let key = Key(NonZeroU32::new(u32::try_from(slot.key()).ok()?.checked_add(1)?)?);
        let (in_lane, in_age) = Default::default();
        slot.insert(Entry { info, place, number: place.number, late_at, in_lane, in_age });
        self.link(key, place.lane);
        if let Some(age) = &mut self.age {
            age.push_back(&mut self.entries, key, self::in_age);
        }
        Some((key, place))
    }

    /// Moves an entry behind those of its level that are on time. Its old place and its new one.
    pub(super) fn make_late(&mut self, key: Key) -> Option<(Place, Place)> {
        let (old, links) = self.entries.get(key.index()).map(|entry| (entry.place, entry.in_lane))?;
        self.unlink(old.lane, links);
        let place = self.new_place(Lane { late: true, ..old.lane });
        self.link(key, place.lane);
        let entry = self.entries.get_mut(key.index())?;
        entry.place = place;
        entry.late_at = None;
        Some((old, place))
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.try_remove(key.index())?;
        self.unlink(entry.place.lane, entry.in_lane);
        if let Some(age) = &mut self.age {
            age.remove(&mut self.entries, entry.in_age, in_age);
        }
        Some(entry)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key.index())
    }

    /// The first to be served.
    pub(super) fn head(&self) -> Option<Key> {
        self.lanes.first().and_then(|(_, chain)| chain.head)
    }

    /// The one to be served behind `key`.
    pub(super) fn next(&self, key: Key) -> Option<Key> {
        let entry = self.get(key)?;
        entry.in_lane.next.or_else(|| {
            let at = self.find(entry.place.lane).ok()?;
            self.lanes.get(at + 1).and_then(|(_, chain)| chain.head)
        })
    }

    pub(super) fn oldest(&self) -> Option<&Entry> {
        let oldest = self.age.map_or_else(|| self.head(), |age| age.head);
        oldest.and_then(|key| self.get(key))
    }

    /// Entries of a level, late ones among them.
    pub(super) fn len_of(&self, level: u64) -> usize {
        let at = |late| self.find(Lane { level, late }).ok().and_then(|at| self.lanes.get(at));
        [false, true].into_iter().filter_map(at).map(|(_, chain)| chain.len).sum()
    }

    /// Whether the entry that had this key and place is still there.
    pub(super) fn holds(&self, key: Key, place: Place) -> bool {
        self.get(key).is_some_and(|entry| entry.place == place)
    }

    fn new_place(&mut self, lane: Lane) -> Place {
        self.next_number += 1;
        Place { lane, number: self.next_number }
    }

    fn find(&self, lane: Lane) -> Result<usize, usize> {
        self.lanes.binary_search_by_key(&lane, |(lane, _)| *lane)
    }

    fn link(&mut self, key: Key, lane: Lane) {
        let at = self.find(lane).unwrap_or_else(|at| {
            // The only lane may be an empty one, kept so that a queue that comes and goes allocates nothing.
            self.lanes.retain(|(_, chain)| chain.len > 0);
            let at = at.min(self.lanes.len());
            self.lanes.insert(at, (lane, Chain::default()));
            at
        });
        if let Some((_, chain)) = self.lanes.get_mut(at) {
            chain.push_back(&mut self.entries, key, in_lane);
        }
    }

    fn unlink(&mut self, lane: Lane, links: Links) {
        let Ok(at) = self.find(lane) else { return };
        if let Some((_, chain)) = self.lanes.get_mut(at) {
            chain.remove(&mut self.entries, links, in_lane);
            if chain.len == 0 && self.lanes.len() > 1 {
                self.lanes.remove(at);
            }
        }
    }
}
