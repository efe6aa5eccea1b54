//! Who may change which models now.
//!
//! ```text
//!   clients, polls ──▶ wait for older ones ──▶ run
//!   backends ────────▶ wait for those that run ─▶ run      refused: what waits for itself
//! ```
//! An operation may run a model that asks for another one: the load of `a` waits for its backend, which waits for the load of
//! `b`. So a backend's operation passes by what only waits, for that may wait for `a`; and where the model that asks is being
//! loaded, its operation is the *child* of that load, which may change what the load does not load itself.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::ServeError;
use crate::statistics::lock;

/// How long a backend's operation waits for its turn. It bounds what cannot be seen: a load that waits for an answer of a
/// model that waits for the turn.
const LONGEST: Duration = Duration::from_secs(600);

/// Operations on one model run one after the other, in the order in which they came; others run beside them.
#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    left: Condvar,
}

/// What an operation is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// The models that it can change.
    pub(crate) names: BTreeSet<String>,
    /// Those of them that it loads.
    pub(crate) loads: BTreeSet<String>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// Those that run or wait, the oldest first.
    operations: Vec<Operation>,
}

struct Operation {
    ticket: u64,
    work: Work,
    runs: bool,
    /// A backend asks for it.
    called: bool,
    /// The load that waits for it.
    parent: Option<u64>,
}

/// The right to change some models.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Queue {
    fn get(&self, ticket: u64) -> Option<&Operation> {
        self.operations.iter().find(|one| one.ticket == ticket)
    }

    fn add(&mut self, work: Work, called: bool, parent: Option<u64>) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.operations.push(Operation { ticket, work, runs: false, called, parent });
        ticket
    }

    /// The load that a model which asks for something is part of.
    fn load_of(&self, model: &str) -> Option<u64> {
        self.operations.iter().find(|one| one.runs && one.work.loads.contains(model)).map(|one| one.ticket)
    }

    /// The operations that wait for this one, from its parent on.
    fn ancestors(&self, operation: &Operation) -> Vec<&Operation> {
        let mut ancestors = Vec::new();
        let mut above = operation.parent;
        while let Some(next) = above.and_then(|ticket| self.get(ticket)) {
            ancestors.push(next);
            above = next.parent;
        }
        ancestors
    }

    /// What this operation has to wait for.
    fn blockers(&self, operation: &Operation) -> Vec<&Operation> {
        let ancestors: Vec<u64> = self.ancestors(operation).iter().map(|one| one.ticket).collect();
        let others = self.operations.iter().filter(|one| one.ticket != operation.ticket);
        others
            .filter(|one| one.runs || (!operation.called && one.ticket < operation.ticket))
            .filter(|one| {
                !ancestors.contains(&one.ticket) && !one.work.names.is_disjoint(&operation.work.names)
            })
            .collect()
    }

    fn may_run(&self, ticket: u64) -> bool {
        self.get(ticket).is_none_or(|operation| self.blockers(operation).is_empty())
    }

    /// A model for which this operation could only wait for ever, since whoever changes it waits for this one.
    fn impossible(&self, ticket: u64) -> Option<&str> {
        let operation = self.get(ticket)?;
        let common = |one: &BTreeSet<String>| {
            operation.work.names.iter().find(|name| one.contains(*name)).map(String::as_str)
        };
        // What a load loads itself is not to be changed under its hands.
        if let Some(name) = self.ancestors(operation).iter().find_map(|one| common(&one.work.loads)) {
            return Some(name);
        }
        self.blockers(operation)
            .into_iter()
            .find(|blocker| self.waits_for(blocker, ticket))
            .and_then(|blocker| common(&blocker.work.names))
    }

    /// Whether `from` can only end after `ticket`, by way of its children and of what they wait for.
    fn waits_for(&self, from: &Operation, ticket: u64) -> bool {
        let (mut open, mut seen) = (vec![from.ticket], BTreeSet::new());
        while let Some(next) = open.pop() {
            if next == ticket {
                return true;
            }
            if !seen.insert(next) {
                continue;
            }
            open.extend(self.operations.iter().filter(|one| one.parent == Some(next)).map(|one| one.ticket));
            if let Some(one) = self.get(next).filter(|one| !one.runs) {
                open.extend(self.blockers(one).iter().map(|one| one.ticket));
            }
        }
        false
    }

    fn run(&mut self, ticket: u64) {
        if let Some(operation) = self.operations.iter_mut().find(|one| one.ticket == ticket) {
            operation.runs = true;
        }
    }

    fn leave(&mut self, ticket: u64) {
        self.operations.retain(|one| one.ticket != ticket);
    }
}

impl Turns {
    /// Whether a client's load of this model runs.
    pub(crate) fn is_loading(&self, model: &str) -> bool {
        let queue = lock(&self.queue);
        queue.load_of(model).and_then(|ticket| queue.get(ticket)).is_some_and(|one| !one.called)
    }

    /// Waits until no older operation changes one of these models. `by`: the model that asks, if one does.
    ///
    /// # Errors
    /// Never without `by`. INVALID_ARG for what waits for itself, UNAVAILABLE when it has been waited for too long.
    pub(crate) fn enter(&self, work: Work, by: Option<&str>) -> Result<Turn<'_>, ServeError> {
        let mut queue = lock(&self.queue);
        let parent = by.and_then(|model| queue.load_of(model));
        let ticket = queue.add(work, by.is_some(), parent);
        let Some(by) = by else {
            let wait = |queue: &mut Queue| !queue.may_run(ticket);
            queue = self.left.wait_while(queue, wait).unwrap_or_else(PoisonError::into_inner);
            queue.run(ticket);
            return Ok(Turn { turns: self, ticket });
        };
        if let Some(name) = queue.impossible(ticket).map(str::to_owned) {
            queue.leave(ticket);
            return Err(ServeError::invalid(format!(
                "model '{by}' cannot have '{name}' changed now: a load that waits for '{by}' changes it, too"
            )));
        }
        let (mut queue, waited) = self
            .left
            .wait_timeout_while(queue, LONGEST, |queue| !queue.may_run(ticket))
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            queue.leave(ticket);
            return Err(ServeError::unavailable(format!(
                "model '{by}' has waited {} s for other loads of the same models; try again",
                LONGEST.as_secs()
            )));
        }
        queue.run(ticket);
        Ok(Turn { turns: self, ticket })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.queue).leave(self.ticket);
        self.turns.left.notify_all();
    }
}

/// A number of things that may be done at once.
pub(crate) struct Permits {
    /// Less than none while what was lent is not back.
    free: Mutex<isize>,
    returned: Condvar,
}

/// The right to do one of them.
pub(crate) struct Permit<'a>(&'a Permits);

/// A right that its owner does not use while it waits.
pub(crate) struct Lent<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.clamp(1, 1 << 16).cast_signed()), returned: Condvar::new() }
    }

    pub(crate) fn take(&self) -> Permit<'_> {
        let free = lock(&self.free);
        let mut free =
            self.returned.wait_while(free, |free| *free <= 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }

    /// Gives one back for others, for as long as its owner waits.
    pub(crate) fn lend(&self) -> Lent<'_> {
        *lock(&self.free) += 1;
        self.returned.notify_one();
        Lent(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.returned.notify_one();
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Does not wait: for a moment more may be done at once.
        *lock(&self.0.free) -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn changes(models: &[&str]) -> Work {
        Work { names: names(models), loads: BTreeSet::new() }
    }

    fn loads(models: &[&str], above: &[&str]) -> Work {
        Work { names: names(models).union(&names(above)).cloned().collect(), loads: names(models) }
    }

    /// A load that runs.
    fn running(queue: &mut Queue, work: Work) -> u64 {
        let ticket = queue.add(work, false, None);
        assert!(queue.may_run(ticket));
        queue.run(ticket);
        ticket
    }

    /// What a backend asks for on behalf of `by`.
    fn called(queue: &mut Queue, by: &str, work: Work) -> u64 {
        let parent = queue.load_of(by);
        queue.add(work, true, parent)
    }

    #[test]
    fn operations_on_one_model_run_in_the_order_in_which_they_came() {
        let mut queue = Queue::default();
        for models in [vec!["a"], vec!["b"], vec!["a", "b"], vec!["b"], vec!["c"]] {
            queue.add(changes(&models), false, None);
        }
        let running = |queue: &Queue| (0..5).filter(|ticket| queue.may_run(*ticket)).collect::<Vec<_>>();
        assert_eq!(running(&queue), [0, 1, 4]);
        queue.leave(1);
        assert_eq!(running(&queue), [0, 1, 4], "3 does not pass 2 by, which came before it");
        queue.leave(0);
        assert_eq!(running(&queue), [0, 1, 2, 4]);
    }

    #[test]
    fn what_a_load_waits_for_passes_by_what_waits_for_that_load() {
        let mut queue = Queue::default();
        let a = running(&mut queue, loads(&["a"], &[]));
        let both = queue.add(changes(&["a", "b"]), false, None);
        let b = called(&mut queue, "a", loads(&["b"], &[]));
        assert_eq!(queue.get(b).unwrap().parent, Some(a));
        assert_eq!((queue.impossible(b), queue.may_run(b)), (None, true));
        queue.run(b);
        queue.leave(a);
        assert!(!queue.may_run(both), "b is being changed");
        queue.leave(b);
        assert!(queue.may_run(both));
    }

    #[test]
    fn a_load_that_waits_for_itself_is_seen() {
        let mut queue = Queue::default();
        running(&mut queue, loads(&["a"], &["above"]));
        let own = called(&mut queue, "a", changes(&["a"]));
        assert_eq!(queue.impossible(own), Some("a"));
        queue.leave(own);
        // An ensemble above both is looked at again afterwards; it is not being loaded.
        let b = called(&mut queue, "a", loads(&["b"], &["above"]));
        assert_eq!((queue.impossible(b), queue.may_run(b)), (None, true));
        queue.run(b);
        let below = called(&mut queue, "b", loads(&["a"], &[]));
        assert_eq!(queue.impossible(below), Some("a"), "of the load above its own");
    }

    #[test]
    fn two_loads_that_wait_for_each_other_are_seen() {
        let mut queue = Queue::default();
        running(&mut queue, loads(&["a"], &[]));
        let b = running(&mut queue, loads(&["b"], &[]));
        let first = called(&mut queue, "a", loads(&["b"], &[]));
        assert_eq!((queue.impossible(first), queue.may_run(first)), (None, false), "b may yet end");
        let second = called(&mut queue, "b", loads(&["a"], &[]));
        assert_eq!(queue.impossible(second), Some("a"));
        queue.leave(second);
        queue.leave(b);
        assert!(queue.may_run(first));
    }

    #[test]
    fn a_model_that_serves_waits_for_what_runs_only() {
        let mut queue = Queue::default();
        let b = running(&mut queue, loads(&["b"], &[]));
        queue.add(changes(&["b"]), false, None);
        let again = called(&mut queue, "a", changes(&["b"]));
        assert_eq!((queue.get(again).unwrap().parent, queue.may_run(again)), (None, false));
        queue.leave(b);
        assert!(queue.may_run(again));
    }

    #[test]
    fn turns_and_permits_come_back() {
        let turns = Turns::default();
        let enter = |models: &[&str], by| turns.enter(loads(models, &[]), by);
        drop(enter(&["a"], None).unwrap());
        let a = enter(&["a"], None).unwrap();
        let error = enter(&["a"], Some("a")).err().unwrap();
        assert!(error.message.contains("a load that waits for 'a' changes it"), "{error}");
        let child = enter(&["c"], Some("a")).unwrap();
        assert!(turns.is_loading("a") && !turns.is_loading("c") && !turns.is_loading("b"));
        let b = enter(&["b"], Some("x")).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(enter(&["a", "b"], None).unwrap()));
            let called = scope.spawn(|| drop(enter(&["a", "b"], Some("x")).unwrap()));
            drop((a, b, child));
            waiting.join().unwrap();
            called.join().unwrap();
        });
        let permits = Permits::new(1);
        drop(permits.take());
        let own = permits.take();
        let lent = permits.lend();
        let others = permits.take();
        drop(lent);
        drop((own, others));
        assert_eq!(*lock(&permits.free), 1);
    }
}
