//! Who may change which models now.
//!
//! ```text
//!   clients, polls ──▶ wait for older ones ──▶ run
//!   backends ────────▶ wait for those that run ─▶ run      refused: what waits for itself
//! ```
//! An operation may run a model that asks for another one: the load of `a` waits for its backend, which waits for the load of
//! `b`. So a backend's operation passes by what only waits, for that may wait for `a`; and where the model that asks is being
//! loaded, its operation is the *child* of that load, which may change what the load does not load itself. Of a model that
//! serves while it is loaded anew nobody can tell which of the two asks: it may be a child.

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
    /// Those of them that it loads; known when it runs.
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
    /// What it has loaded, well or not.
    done: BTreeSet<String>,
    /// A backend asks for it.
    called: bool,
    parent: Option<Parent>,
}

/// The load that waits for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    ticket: u64,
    /// It may be the model as it served before that asks, for which no load waits.
    sure: bool,
}

/// The model on whose behalf a backend asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) model: &'a str,
    /// A version of it takes requests.
    pub(crate) serves: bool,
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

    fn add(&mut self, work: Work, called: bool, parent: Option<Parent>) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.operations.push(Operation { ticket, work, runs: false, done: BTreeSet::new(), called, parent });
        ticket
    }

    /// The load that waits for what a model asks for.
    fn parent_of(&self, by: Asker<'_>) -> Option<Parent> {
        let loads =
            |one: &&Operation| one.runs && one.work.loads.contains(by.model) && !one.done.contains(by.model);
        self.operations.iter().find(loads).map(|one| Parent { ticket: one.ticket, sure: !by.serves })
    }

    /// The operations that wait for this one, from its parent on, and whether they surely do.
    fn ancestors(&self, operation: &Operation) -> Vec<(&Operation, bool)> {
        let (mut ancestors, mut all_sure) = (Vec::new(), true);
        let mut above = operation.parent;
        while let Some((next, sure)) = above.and_then(|parent| Some((self.get(parent.ticket)?, parent.sure)))
        {
            all_sure &= sure;
            ancestors.push((next, all_sure));
            above = next.parent;
        }
        ancestors
    }

    /// What this operation has to wait for.
    fn blockers(&self, operation: &Operation) -> Vec<&Operation> {
        let ancestors: Vec<u64> = self.ancestors(operation).iter().map(|(one, _)| one.ticket).collect();
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

    /// A model for which this operation could only wait for ever, since whoever changes it waits for this one; and whether
    /// that is sure.
    fn impossible(&self, ticket: u64) -> Option<(&str, bool)> {
        let operation = self.get(ticket)?;
        let common = |one: &BTreeSet<String>| {
            operation.work.names.iter().find(|name| one.contains(*name)).map(String::as_str)
        };
        // What a load loads itself is not to be changed under its hands.
        let above = self.ancestors(operation).into_iter();
        let above = above.filter_map(|(one, sure)| Some((common(&one.work.loads)?, sure)));
        let blockers = self.blockers(operation).into_iter().filter(|one| self.waits_for(one, ticket, false));
        let around =
            blockers.filter_map(|one| Some((common(&one.work.names)?, self.waits_for(one, ticket, true))));
        let found: Vec<(&str, bool)> = above.chain(around).collect();
        found.iter().find(|(_, sure)| *sure).or(found.first()).copied()
    }

    /// Whether `from` can only end after `ticket`, by way of its children, of the `sure` ones alone if so wanted, and of what
    /// they wait for.
    fn waits_for(&self, from: &Operation, ticket: u64, sure: bool) -> bool {
        let (mut open, mut seen) = (vec![from.ticket], BTreeSet::new());
        while let Some(next) = open.pop() {
            if next == ticket {
                return true;
            }
            if !seen.insert(next) {
                continue;
            }
            let is_child = |parent: Parent| parent.ticket == next && (parent.sure || !sure);
            let children = self.operations.iter().filter(|one| one.parent.is_some_and(is_child));
            open.extend(children.map(|one| one.ticket));
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
    /// Waits until no older operation changes one of these models. `by`: the model that asks, if one does.
    ///
    /// # Errors
    /// Never without `by`. INVALID_ARG for what waits for itself; UNAVAILABLE for what may, and when it has been waited for
    /// too long.
    pub(crate) fn enter(
        &self,
        names: BTreeSet<String>,
        by: Option<Asker<'_>>,
    ) -> Result<Turn<'_>, ServeError> {
        let work = Work { names, loads: BTreeSet::new() };
        let mut queue = lock(&self.queue);
        let parent = by.and_then(|by| queue.parent_of(by));
        let ticket = queue.add(work, by.is_some(), parent);
        let Some(by) = by.map(|by| by.model) else {
            let wait = |queue: &mut Queue| !queue.may_run(ticket);
            queue = self.left.wait_while(queue, wait).unwrap_or_else(PoisonError::into_inner);
            queue.run(ticket);
            return Ok(Turn { turns: self, ticket });
        };
        if let Some((name, sure)) = queue.impossible(ticket) {
            let waits = if sure { "waits" } else { "may wait" };
            let message = format!(
                "model '{by}' cannot have '{name}' changed now: a load that {waits} for '{by}' changes it, too"
            );
            queue.leave(ticket);
            return Err(if sure {
                ServeError::invalid(message)
            } else {
                ServeError::unavailable(format!("{message}; try again"))
            });
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

impl Turn<'_> {
    /// What is going to be loaded. Before any of it is begun.
    pub(crate) fn begin(&self, loads: BTreeSet<String>) {
        self.change(|operation| operation.work.loads = loads);
    }

    /// One of them has been loaded, well or not: no load waits any more for what its model asks for.
    pub(crate) fn done(&self, name: &str) {
        self.change(|operation| operation.done.extend([name.to_owned()]));
    }

    fn change(&self, edit: impl FnOnce(&mut Operation)) {
        let mut queue = lock(&self.turns.queue);
        if let Some(operation) = queue.operations.iter_mut().find(|one| one.ticket == self.ticket) {
            edit(operation);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.queue).leave(self.ticket);
        self.turns.left.notify_all();
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
        called_by(queue, Asker { model: by, serves: false }, work)
    }

    fn called_by(queue: &mut Queue, by: Asker<'_>, work: Work) -> u64 {
        let parent = queue.parent_of(by);
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
        assert_eq!(queue.get(b).unwrap().parent, Some(Parent { ticket: a, sure: true }));
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
        assert_eq!(queue.impossible(own), Some(("a", true)));
        queue.leave(own);
        // An ensemble above both is looked at again afterwards; it is not being loaded.
        let b = called(&mut queue, "a", loads(&["b"], &["above"]));
        assert_eq!((queue.impossible(b), queue.may_run(b)), (None, true));
        queue.run(b);
        let below = called(&mut queue, "b", loads(&["a"], &[]));
        assert_eq!(queue.impossible(below), Some(("a", true)), "of the load above its own");
    }

    #[test]
    fn two_loads_that_wait_for_each_other_are_seen() {
        let mut queue = Queue::default();
        running(&mut queue, loads(&["a"], &[]));
        let b = running(&mut queue, loads(&["b"], &[]));
        let first = called(&mut queue, "a", loads(&["b"], &[]));
        assert_eq!((queue.impossible(first), queue.may_run(first)), (None, false), "b may yet end");
        let second = called(&mut queue, "b", loads(&["a"], &[]));
        assert_eq!(queue.impossible(second), Some(("a", true)));
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
    fn what_serves_while_it_is_loaded_anew_may_be_waited_for() {
        let old = |model| Asker { model, serves: true };
        let mut queue = Queue::default();
        let a = running(&mut queue, loads(&["a"], &[]));
        let own = called_by(&mut queue, old("a"), changes(&["a"]));
        assert_eq!(queue.impossible(own), Some(("a", false)));
        queue.leave(own);
        let b = called_by(&mut queue, old("a"), loads(&["b"], &[]));
        assert_eq!((queue.impossible(b), queue.may_run(b)), (None, true));
        queue.run(b);
        let below = called(&mut queue, "b", loads(&["a"], &[]));
        assert_eq!(queue.impossible(below), Some(("a", false)), "b surely waits for it, a perhaps for b");
        queue.leave(below);
        queue.leave(b);
        // By way of another load.
        let c = running(&mut queue, loads(&["c"], &[]));
        let first = called_by(&mut queue, old("a"), loads(&["c"], &[]));
        assert_eq!((queue.impossible(first), queue.may_run(first)), (None, false));
        let second = called(&mut queue, "c", loads(&["a"], &[]));
        assert_eq!(queue.impossible(second), Some(("a", false)));
        queue.leave(second);
        queue.leave(c);
        assert!(queue.may_run(first));
        queue.leave(a);
    }

    #[test]
    fn what_has_been_loaded_waits_for_the_rest_of_its_load() {
        let turns = Turns::default();
        let turn = turns.enter(names(&["a", "b"]), None).unwrap();
        turn.begin(names(&["a", "b"]));
        turn.done("a");
        let mut queue = lock(&turns.queue);
        let later = called_by(&mut queue, Asker { model: "a", serves: true }, changes(&["a"]));
        assert_eq!((queue.get(later).unwrap().parent, queue.impossible(later)), (None, None));
        assert!(!queue.may_run(later));
        let other = called(&mut queue, "b", changes(&["a"]));
        assert_eq!(queue.impossible(other), Some(("a", true)), "it is loaded together with b");
        drop(queue);
        drop(turn);
        assert!(lock(&turns.queue).may_run(later));
    }

    #[test]
    fn turns_come_back() {
        let turns = Turns::default();
        let enter = |models: &[&str], by: Option<&str>| {
            let turn = turns.enter(names(models), by.map(|model| Asker { model, serves: false }))?;
            turn.begin(names(models));
            Ok::<_, ServeError>(turn)
        };
        drop(enter(&["a"], None).unwrap());
        let a = enter(&["a"], None).unwrap();
        let error = enter(&["a"], Some("a")).err().unwrap();
        assert!(error.message.contains("a load that waits for 'a' changes it"), "{error}");
        let child = enter(&["c"], Some("a")).unwrap();
        let b = enter(&["b"], Some("x")).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(enter(&["a", "b"], None).unwrap()));
            let called = scope.spawn(|| drop(enter(&["a", "b"], Some("x")).unwrap()));
            drop((a, b, child));
            waiting.join().unwrap();
            called.join().unwrap();
        });
    }
}
