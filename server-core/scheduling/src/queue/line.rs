//! A FIFO whose entries can leave from the middle: a doubly linked list in a slab.

use slab::Slab;

use crate::request::RequestInfo;

/// Where an entry lies. Reused after the entry left; with its [`Place`] it is unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(usize);

/// An entry's rank: places grow from head to tail and are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) info: RequestInfo,
    pub(crate) place: Place,
    pub(crate) next: Option<Key>,
    prev: Option<Key>,
}

#[derive(Debug, Default)]
pub(crate) struct Line {
    entries: Slab<Entry>,
    head: Option<Key>,
    tail: Option<Key>,
    next_place: u64,
}

impl Line {
    pub(crate) fn push_back(&mut self, info: RequestInfo) -> (Key, Place) {
        let place = Place(self.next_place);
        self.next_place += 1;
        let key = Key(self.entries.insert(Entry { info, place, next: None, prev: self.tail }));
        match self.tail.and_then(|tail| self.entries.get_mut(tail.0)) {
            Some(last) => last.next = Some(key),
            None => self.head = Some(key),
        }
        self.tail = Some(key);
        (key, place)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.try_remove(key.0)?;
        match entry.prev.and_then(|prev| self.entries.get_mut(prev.0)) {
            Some(prev) => prev.next = entry.next,
            None => self.head = entry.next,
        }
        match entry.next.and_then(|next| self.entries.get_mut(next.0)) {
            Some(next) => next.prev = entry.prev,
            None => self.tail = entry.prev,
        }
        Some(entry)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key.0)
    }

    pub(crate) fn head(&self) -> Option<Key> {
        self.head
    }

    /// Whether the entry that had this key and place is still here.
    pub(crate) fn holds(&self, key: Key, place: Place) -> bool {
        self.get(key).is_some_and(|entry| entry.place == place)
    }
}
