use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values of together at most so many bytes; what was not used for the longest time goes first.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    limit: usize,
    used: usize,
    now: u64,
    entries: HashMap<K, Slot<V>>,
    /// By the time of the last use.
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    size: usize,
    last_use: u64,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, now: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The value, which is now the one used last.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let slot = self.entries.get_mut(key)?;
        self.now += 1;
        self.order.remove(&slot.last_use);
        slot.last_use = self.now;
        self.order.insert(self.now, *key);
        Some(&slot.value)
    }

    /// Adds or replaces a value of `size` bytes; gives back what had to go. One that does not fit at all comes back.
    pub(super) fn insert(&mut self, key: K, value: V, size: usize) -> Vec<V> {
        if size > self.limit {
            return vec![value];
        }
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        while self.used + size > self.limit
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = *oldest;
            gone.extend(self.remove(&oldest));
        }
        self.now += 1;
        self.used += size;
        self.order.insert(self.now, key);
        self.entries.insert(key, Slot { value, size, last_use: self.now });
        gone
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.entries.remove(key)?;
        self.order.remove(&slot.last_use);
        self.used -= slot.size;
        Some(slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_not_used_for_the_longest_time_goes_first() {
        let mut lru = Lru::new(10);
        assert!(lru.insert(1, "one", 4).is_empty());
        assert!(lru.insert(2, "two", 4).is_empty());
        assert_eq!(lru.get(&1), Some(&"one"));
        assert_eq!(lru.insert(3, "three", 4), ["two"]);
        let mut get = |key| lru.get(&key).copied();
        assert_eq!((get(1), get(2), get(3)), (Some("one"), None, Some("three")));
        assert_eq!(lru.insert(4, "four", 10), ["one", "three"]);
        assert_eq!(lru.insert(5, "five", 11), ["five"]);
        assert_eq!(lru.insert(4, "again", 1), ["four"]);
        assert_eq!((lru.used, lru.entries.len(), lru.order.len()), (1, 1, 1));
    }
}
