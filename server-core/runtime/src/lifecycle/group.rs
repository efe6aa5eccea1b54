//! Several models at once: each after those that it needs, independent ones beside each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, PoisonError};

use super::graph::{self, Order};
use super::target::{Target, Targets, needs};
use super::turns::Turn;
use crate::core::Core;
use crate::error::ServeError;
use crate::source;
use crate::statistics::lock;

/// How a load ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It serves already, just so.
    Unchanged,
    /// It serves now.
    Changed,
}

pub(crate) type Results = BTreeMap<String, Result<(), ServeError>>;

impl Core {
    /// Loads the targets, then looks again at the ensembles that need one of them. The caller has the turn of all.
    pub(crate) fn run(&self, mut targets: Targets, turn: &Turn<'_>) -> Results {
        let named: BTreeSet<String> = targets.keys().cloned().collect();
        // Before anything is loaded, whose backend may have them changed.
        let mut settled = BTreeMap::new();
        targets.retain(|name, target| {
            if target.settled {
                self.life.records.change(name, |record| record.asked |= target.asked);
                self.want(name);
                settled.insert(name.clone(), Ok(Outcome::Unchanged));
            }
            !target.settled
        });
        let mut results = self.run_group(&targets, Some(turn));
        results.extend(settled);
        let index = self.index.load();
        let serves = |name: &String| index.models.get(name).is_some_and(|entry| entry.latest.is_some());
        // A failure that has left the old one serving has changed nothing.
        let has_changed = |(name, result): &(&String, &Result<Outcome, ServeError>)| match result {
            Ok(outcome) => *outcome == Outcome::Changed,
            Err(_) => !serves(name),
        };
        let touched: BTreeSet<String> =
            results.iter().filter(has_changed).map(|(name, _)| name.clone()).collect();
        let mut above = self.dependents(&touched);
        above.retain(|name| !named.contains(name));
        self.run_again(&above);
        results.into_iter().map(|(name, result)| (name, result.map(drop))).collect()
    }

    /// Holds ensembles against their steps once more; one that no longer fits is unloaded. No backend is called for it: what
    /// has become another kind of model since is left until somebody loads it.
    pub(crate) fn run_again(&self, ensembles: &BTreeSet<String>) {
        if ensembles.is_empty() {
            return;
        }
        // A load and what its backend loads meanwhile may have ensembles in common.
        let _one_at_a_time = lock(&self.life.again);
        let target = |name: &String| -> Option<(String, Target)> {
            let record = self.life.records.get(name);
            let target = match record.origin {
                Some(origin) if source::is_ensemble(&origin.draft) => Target {
                    found: origin.found.clone(),
                    given: origin.given.clone(),
                    seen: None,
                    draft: Some(origin.draft.clone()),
                    asked: record.asked,
                    again: true,
                    called: false,
                    settled: false,
                    steps: record.steps,
                },
                // It is being loaded as an ensemble.
                Some(_) => return None,
                None => {
                    let found = source::find(&self.options, name).ok().flatten()?;
                    let target = self.target(found, None);
                    if target.steps.is_empty() {
                        self.life.records.change(name, |record| record.steps.clear());
                        return None;
                    }
                    Target { asked: record.asked, again: true, ..target }
                }
            };
            Some((name.clone(), target))
        };
        let targets: Targets = ensembles.iter().filter_map(target).collect();
        for (name, result) in self.run_group(&targets, None) {
            if let Err(error) = result {
                tracing::warn!(model = name, "{}", error.message);
            }
        }
    }

    fn run_group(
        &self,
        targets: &Targets,
        turn: Option<&Turn<'_>>,
    ) -> BTreeMap<String, Result<Outcome, ServeError>> {
        let mut results = BTreeMap::new();
        let mut needs = needs(targets);
        for (name, way) in graph::circles(&needs) {
            needs.remove(&name);
            let way = way.join("' -> '");
            let error = ServeError::invalid(format!(
                "the ensembles '{way}' need each other in a circle; none can be first"
            ));
            let error = self.load_failed(&name, error.into());
            results.insert(name, Err(error));
        }
        let board = Board { order: Mutex::new(Order::new(needs)), changed: Condvar::new() };
        let results = Mutex::new(results);
        let work = || {
            while let Some(name) = board.take() {
                let done = Done { board: &board, name: &name, turn };
                if let Some(target) = targets.get(&name) {
                    let result = self.load_one(&name, target);
                    if let Err(error) = &result {
                        tracing::error!(model = name, "{}", error.message);
                    }
                    lock(&results).insert(name.clone(), result);
                }
                drop(done);
            }
        };
        std::thread::scope(|scope| {
            // The caller's own thread is one of them.
            for _ in 1..self.options.load_threads.min(targets.len()) {
                let builder = std::thread::Builder::new().name("load".to_owned());
                if let Err(error) = builder.spawn_scoped(scope, work) {
                    tracing::warn!("no further thread to load models: {error}");
                    break;
                }
            }
            work();
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The models of a group that are still to be loaded.
struct Board {
    order: Mutex<Order>,
    changed: Condvar,
}

/// A model that is being loaded. Also a panic ends it, or the others would wait for ever.
struct Done<'a> {
    board: &'a Board,
    name: &'a str,
    turn: Option<&'a Turn<'a>>,
}

impl Board {
    /// The next model that can be loaded; `None` when there is none left.
    fn take(&self) -> Option<String> {
        let mut order = lock(&self.order);
        loop {
            if order.is_empty() {
                return None;
            }
            if let Some(name) = order.take() {
                return Some(name);
            }
            order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            turn.done(self.name);
        }
        lock(&self.board.order).done(self.name);
        self.board.changed.notify_all();
    }
}
