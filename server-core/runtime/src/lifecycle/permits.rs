//! How many models are loaded at once, whoever asked for them.
//!
//! A load that waits for its own backend, which waits for another load, needs no place meanwhile, and whoever it waits for may
//! need one. So what a model asks for lends a place of that model's load to others; however much it asks for, no more than its
//! load holds.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::statistics::lock;

/// A number of places for loads.
pub(crate) struct Permits {
    places: Mutex<Places>,
    returned: Condvar,
}

struct Places {
    /// Less than none while what was lent is not back.
    free: isize,
    /// The models that have one, or ask for something.
    models: BTreeMap<String, Load>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    held: usize,
    asking: usize,
}

/// The right to load a version of a model.
pub(crate) struct Permit<'a> {
    permits: &'a Permits,
    model: String,
}

/// A model asks for something and waits.
pub(crate) struct Asking<'a> {
    permits: &'a Permits,
    model: String,
}

impl Load {
    /// How many places others have, so that this load has them no more: never more than it holds.
    fn lent(self) -> isize {
        self.held.min(self.asking).cast_signed()
    }
}

impl Places {
    fn change(&mut self, model: &str, edit: impl FnOnce(&mut Load)) {
        let mut load = self.models.remove(model).unwrap_or_default();
        let before = load.lent() - load.held.cast_signed();
        edit(&mut load);
        self.free += load.lent() - load.held.cast_signed() - before;
        if load != Load::default() {
            self.models.insert(model.to_owned(), load);
        }
    }
}

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        let places = Places { free: count.clamp(1, 1 << 16).cast_signed(), models: BTreeMap::new() };
        Self { places: Mutex::new(places), returned: Condvar::new() }
    }

    /// Waits for a place.
    pub(crate) fn take(&self, model: &str) -> Permit<'_> {
        let places = lock(&self.places);
        let mut places = self
            .returned
            .wait_while(places, |places| places.free <= 0)
            .unwrap_or_else(PoisonError::into_inner);
        places.change(model, |load| load.held += 1);
        drop(places);
        // A model that asks already lends what it has got.
        self.returned.notify_all();
        Permit { permits: self, model: model.to_owned() }
    }

    /// For as long as what this model asks for is not answered. The end of it does not wait: for a moment more may be loaded
    /// at once.
    pub(crate) fn ask(&self, model: &str) -> Asking<'_> {
        self.change(model, |load| load.asking += 1);
        Asking { permits: self, model: model.to_owned() }
    }

    fn change(&self, model: &str, edit: impl FnOnce(&mut Load)) {
        lock(&self.places).change(model, edit);
        self.returned.notify_all();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.permits.change(&self.model, |load| load.held -= 1);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.permits.change(&self.model, |load| load.asking -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(permits: &Permits) -> isize {
        lock(&permits.places).free
    }

    #[test]
    fn a_load_that_asks_lends_what_it_holds() {
        let permits = Permits::new(1);
        drop(permits.take("a"));
        let own = permits.take("a");
        assert_eq!(free(&permits), 0);
        let asking: Vec<Asking<'_>> = (0..8).map(|_| permits.ask("a")).collect();
        assert_eq!(free(&permits), 1, "one place, however much it asks for");
        let others = permits.take("b");
        assert_eq!(free(&permits), 0);
        let nothing = permits.ask("c");
        assert_eq!(free(&permits), 0, "it holds none");
        drop((asking, nothing));
        assert_eq!(free(&permits), -1, "for a moment two are loaded");
        drop((own, others));
        assert_eq!(free(&permits), 1);
        assert!(lock(&permits.places).models.is_empty());
    }

    #[test]
    fn each_version_of_a_model_lends_its_own_place() {
        let permits = Permits::new(2);
        let asking = [permits.ask("a"), permits.ask("a"), permits.ask("a")];
        let first = permits.take("a");
        assert_eq!(free(&permits), 2);
        let second = permits.take("a");
        assert_eq!(free(&permits), 2);
        drop(second);
        assert_eq!(free(&permits), 2);
        drop(asking);
        assert_eq!(free(&permits), 1);
        drop(first);
        assert_eq!(free(&permits), 2);
    }

    #[test]
    fn who_waits_gets_what_is_lent() {
        let permits = Permits::new(1);
        let own = permits.take("a");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(permits.take("b")));
            let asking = permits.ask("a");
            assert!(waiting.join().is_ok());
            drop(asking);
        });
        drop(own);
        assert_eq!(free(&permits), 1);
    }
}
