//! The unload call, and models that are taken away for another reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commit::mark_failed;
use super::graph;
use crate::core::Core;
use crate::error::ServeError;
use crate::index::UNLOADED;
use crate::load::LoadFailure;
use crate::served::Served;
use crate::source;
use crate::state::ModelState;

impl Core {
    /// READY => UNLOADING => UNAVAILABLE, after the loads that came before. Returns when the model takes no more requests and its ensembles
    /// know. `by`: the model on whose behalf a backend asks.
    pub(crate) fn unload_now(
        self: &Arc<Self>,
        name: &str,
        with_steps: bool,
        by: Option<&str>,
    ) -> Result<(), ServeError> {
        let involved = || {
            let needs = self.life.records.needs();
            let mut names = BTreeSet::from([name.to_owned()]);
            if with_steps {
                names.extend(graph::orphans(&needs, &self.life.records.asked(), name));
            }
            names.extend(graph::dependents(&needs, &names));
            names
        };
        let mut names = involved();
        let _asking = by.map(|by| self.life.permits.ask(by));
        let _turn = loop {
            let turn = self.life.turns.enter(names.clone(), self.asker(by))?;
            let now = involved();
            if now.is_subset(&names) {
                break turn;
            }
            drop(turn);
            names.extend(now);
        };
        // After the turn has come: a load that came before is done by then.
        if !self.index.load().models.contains_key(name) {
            // What is not there is not loaded either: as asked. Scripts of upstream's rely on that.
            if source::find(&self.options, name)?.is_none() {
                tracing::warn!("unload of '{}': no such model in the repositories", name.escape_debug());
            }
            return Ok(());
        }
        let mut leaving = BTreeSet::from([name.to_owned()]);
        if with_steps {
            let needs = self.life.records.needs();
            leaving.extend(graph::orphans(&needs, &self.life.records.asked(), name));
        }
        let above = self.dependents(&leaving);
        self.take_away(&leaving, false)?;
        self.run_again(&above);
        // They went with what was unloaded on purpose, which does not make the server unready.
        self.change(|index| {
            for name in &above {
                if let Some(entry) = index.models.get_mut(name).filter(|entry| entry.latest.is_none()) {
                    entry.requested = false;
                }
            }
        });
        Ok(())
    }

    /// Unloads models that nobody wants any more. With `gone` their directories are gone, too, and the index forgets
    /// them once they have ended. The caller has their turn.
    pub(crate) fn take_away(
        self: &Arc<Self>,
        names: &BTreeSet<String>,
        gone: bool,
    ) -> Result<(), ServeError> {
        let mut leaving = Vec::new();
        self.change(|index| {
            for name in names {
                let Some(entry) = index.models.get_mut(name) else { continue };
                (entry.requested, entry.unreadable) = (false, false);
                entry.reason = None;
                for version in entry.versions.values_mut() {
                    match version.model.take() {
                        Some(model) => {
                            version.state = ModelState::Unloading;
                            leaving.push(model);
                        }
                        // It failed, and was given up.
                        None if version.state != ModelState::Unloading => {
                            version.state = ModelState::Unavailable;
                            version.reason = UNLOADED.to_owned();
                        }
                        None => {}
                    }
                }
                entry.settle();
            }
        });
        for name in names {
            self.life.records.forget(name);
        }
        self.let_end(leaving, names.clone(), gone)
    }

    /// The call returns when the unload has begun; a thread tells the index when it is done.
    fn let_end(
        self: &Arc<Self>,
        leaving: Vec<Arc<Served>>,
        names: BTreeSet<String>,
        gone: bool,
    ) -> Result<(), ServeError> {
        if leaving.is_empty() && !gone {
            return Ok(());
        }
        let generations: Vec<u64> = leaving.iter().map(|model| model.generation()).collect();
        // Each ends when nobody holds it any more: a running ensemble still needs the models of its steps.
        drop(leaving);
        let core = Arc::clone(self);
        let watch = move || {
            core.threads.wait_for(&generations);
            core.change(|index| {
                for name in &names {
                    let Some(entry) = index.models.get_mut(name) else { continue };
                    for version in entry.versions.values_mut().filter(|v| v.state == ModelState::Unloading) {
                        version.state = ModelState::Unavailable;
                        version.reason = UNLOADED.to_owned();
                    }
                    if gone && !entry.requested {
                        entry.gone = true;
                        entry.versions.clear();
                    }
                }
            });
        };
        let spawned = std::thread::Builder::new().name("unload".to_owned()).spawn(watch);
        spawned
            .map(drop)
            .map_err(|error| ServeError::internal(format!("no thread to unload a model: {error}")))
    }

    /// A model that somebody wants cannot be served any more: nothing of it is kept but the reason.
    pub(crate) fn withdraw(&self, name: &str, failure: &LoadFailure) {
        let mut leaving = Vec::new();
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            entry.requested = true;
            leaving.extend(entry.versions.values_mut().filter_map(|version| version.model.take()));
            mark_failed(entry, failure);
            entry.settle();
        });
        self.life.records.change(name, |record| record.origin = None);
        for model in leaving {
            tracing::warn!(model = name, version = model.version(), "unloaded: {}", failure.error.message);
        }
    }
}
