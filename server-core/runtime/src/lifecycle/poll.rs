//! Looking at the repositories from time to time, and following what has changed.
//!
//! Writers do not tell when they are done, so a change is followed only when two looks, some time apart, see the same:
//! a directory that is being copied differs from look to look and is left until it is still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use trireme_repository::{Fingerprint, FoundModel};

use super::target::{Target, Targets};
use crate::core::Core;
use crate::error::ServeError;
use crate::source;
use crate::statistics::lock;

/// How far apart the two looks at a change are, at most; between two polls they are no further than these.
const SETTLE: Duration = Duration::from_secs(1);

/// What ends the polling.
#[derive(Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.told.notify_all();
    }

    /// Waits so long, or until it is to end; true if it is.
    fn wait(&self, time: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let waited = self.told.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A model as one look has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    found: FoundModel,
    /// None of a directory that cannot be read, which is never still.
    fingerprint: Option<Fingerprint>,
}

/// All models, as one look has seen them.
type Look = BTreeMap<String, Seen>;

/// What is to be done after two looks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// They have changed, and are still.
    load: Vec<Seen>,
    /// Their directories are gone.
    unload: BTreeSet<String>,
    /// They have changed, and change on.
    moving: BTreeSet<String>,
}

/// `changed` between the two looks; `still` of it what looks the same in both.
fn plan(changed: &BTreeSet<String>, first: &Look, second: &Look) -> Plan {
    let mut plan = Plan::default();
    for name in changed {
        match (first.get(name), second.get(name)) {
            (None, None) => drop(plan.unload.insert(name.clone())),
            (Some(one), Some(two))
                if one == two && (one.fingerprint.is_some() || one.found.problem.is_some()) =>
            {
                plan.load.push(two.clone());
            }
            _ => drop(plan.moving.insert(name.clone())),
        }
    }
    plan
}

impl Core {
    /// Starts the thread that polls; it ends with the server.
    pub(crate) fn start_polling(self: &Arc<Self>, interval: Duration) -> Result<(), ServeError> {
        let (core, stop) = (Arc::downgrade(self), Arc::clone(&self.life.stop));
        let thread = std::thread::Builder::new().name("poll".to_owned());
        thread
            .spawn(move || poll(&core, &stop, interval))
            .map(drop)
            .map_err(|error| ServeError::internal(format!("no thread to poll the repositories: {error}")))
    }

    /// Looks twice and follows what has changed and is still. True if the server is to end.
    fn poll_once(self: &Arc<Self>, stop: &Stop, settle: Duration) -> Result<bool, ServeError> {
        let first = self.look()?;
        let changed = self.changed(&first);
        if changed.is_empty() {
            return Ok(false);
        }
        if stop.wait(settle) {
            return Ok(true);
        }
        let second = self.look()?;
        let plan = plan(&changed, &first, &second);
        for name in &plan.moving {
            tracing::info!(model = name, "its directory is being written: left until it is still");
        }
        self.follow(plan)?;
        Ok(false)
    }

    fn look(&self) -> Result<Look, ServeError> {
        let seen = |found: FoundModel| {
            let fingerprint = match found.problem {
                Some(_) => None,
                None => Fingerprint::of(&found).ok(),
            };
            (found.name.clone(), Seen { found, fingerprint })
        };
        Ok(source::rescan(&self.options)?.into_iter().map(seen).collect())
    }

    /// The models that are not served as this look has seen them: new, changed, gone, or failed before.
    fn changed(&self, look: &Look) -> BTreeSet<String> {
        let index = self.index.load();
        let differs = |(name, seen): &(&String, &Seen)| {
            if let Some(problem) = &seen.found.problem {
                let entry = index.models.get(*name);
                return entry.is_none_or(|entry| entry.reason.as_ref() != Some(problem));
            }
            let record = self.life.records.get(name);
            let current = |print| record.origin.is_some_and(|origin| origin.is_as_seen(&seen.found, print));
            !seen.fingerprint.as_ref().is_some_and(current)
        };
        let gone = index.models.iter().filter(|(name, entry)| entry.requested && !look.contains_key(*name));
        let changed = look.iter().filter(differs).map(|(name, _)| name.clone());
        changed.chain(gone.map(|(name, _)| name.clone())).collect()
    }

    fn follow(self: &Arc<Self>, plan: Plan) -> Result<(), ServeError> {
        let Plan { load, unload, .. } = plan;
        if !unload.is_empty() {
            let above: BTreeSet<String> = self.dependents(&unload);
            let names = unload.union(&above).cloned().collect();
            let _turn = self.life.turns.enter(names, None)?;
            tracing::info!("gone from the repositories: {unload:?}");
            self.take_away(&unload, true)?;
            self.run_again(&above);
        }
        if !load.is_empty() {
            let seeds = || -> Result<Targets, ServeError> {
                let target = |Seen { found, fingerprint }: &Seen| {
                    let target = self.target(found.clone(), None);
                    (found.name.clone(), Target { seen: fingerprint.clone(), ..target })
                };
                Ok(load.iter().map(target).collect())
            };
            // Each failure is in the log and in the index; the next poll tries again.
            self.in_turn(None, seeds, |targets, turn| self.run(targets, turn))?;
        }
        Ok(())
    }
}

fn poll(core: &Weak<Core>, stop: &Stop, interval: Duration) {
    while !stop.wait(interval) {
        let Some(core) = core.upgrade() else { return };
        match core.poll_once(stop, SETTLE.min(interval)) {
            Ok(true) => return,
            Ok(false) => {}
            // A repository that is away for a moment takes no model with it.
            Err(error) => tracing::error!("the repositories are not followed: {}", error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn look(root: &std::path::Path) -> Look {
        let found = trireme_repository::rescan(&[root.to_owned()], None).unwrap();
        let seen = |found: FoundModel| {
            let fingerprint = Fingerprint::of(&found).ok();
            (found.name.clone(), Seen { found, fingerprint })
        };
        found.into_iter().map(seen).collect()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_being_written_is_left_until_it_is_still() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("still/1/model", "x");
        write("copied/1/model", "x");
        let first = look(dir.path());
        write("copied/1/model", "xy");
        write("new/1/model", "x");
        let second = look(dir.path());
        let changed = names(&["still", "copied", "new", "gone"]);
        let made = plan(&changed, &first, &second);
        assert_eq!(made.load.iter().map(|seen| seen.found.name.as_str()).collect::<Vec<_>>(), ["still"]);
        assert_eq!((made.unload, made.moving), (names(&["gone"]), names(&["copied", "new"])));

        let third = look(dir.path());
        let made = plan(&changed, &second, &third);
        assert_eq!(made.load.len(), 3);
        std::fs::remove_dir_all(dir.path().join("new")).unwrap();
        let fourth = look(dir.path());
        assert_eq!(plan(&names(&["new"]), &third, &fourth).moving, names(&["new"]), "it may come back");
        assert_eq!(plan(&names(&["new"]), &fourth, &fourth).unload, names(&["new"]));
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::ZERO));
        stop.stop();
        assert!(stop.wait(Duration::from_secs(3600)));
    }
}
