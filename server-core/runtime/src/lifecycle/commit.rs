//! The swaps of the index with which a load ends, well or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trireme_repository::Fingerprint;

use super::build::{Built, load_error};
use super::origin::{LibraryOrigin, Origin, VersionOrigin};
use super::target::Target;
use crate::core::Core;
use crate::error::ServeError;
use crate::index::{ModelEntry, UNLOADED, VersionEntry};
use crate::load::LoadFailure;
use crate::served::Served;
use crate::state::ModelState;

/// How long a load waits for instances that are taken out; one of them may be in a long execution.
const LAST_EXECUTION: Duration = Duration::from_secs(10);

impl Core {
    /// LOADING => READY: swaps the versions in and lets the old ones finish.
    pub(crate) fn commit(
        &self,
        name: &str,
        target: &Target,
        fingerprint: Fingerprint,
        built: Built,
        started: u64,
    ) {
        let seconds = trireme_telemetry::clock::now_ns().saturating_sub(started) as f64 / 1e9;
        let Built { draft, fresh, kept } = built;
        let mut origins = BTreeMap::new();
        let mut served = BTreeMap::new();
        for mut loaded in fresh {
            let number = loaded.version.version();
            loaded.version.metrics.set_load_duration_secs(seconds);
            let (fleet, library) = (loaded.fleet.take(), loaded.library.take().map(LibraryOrigin::of));
            origins.insert(number, VersionOrigin { fleet, library });
            served.insert(number, Served::new(loaded.start(&self.threads)));
            tracing::info!(model = name, version = number, "ready after {seconds:.2} s");
        }
        let before = self.life.records.get(name).origin;
        let mut ending = Vec::new();
        for one in kept {
            let number = one.served.version();
            let origin = before.as_ref().and_then(|origin| origin.versions.get(&number));
            let mut origin = origin.cloned().unwrap_or_default();
            let model = match one.revised {
                None => one.served,
                Some((model, change)) => {
                    let (fleet, retired) = change.commit(&model, &self.threads);
                    ending.push((Arc::clone(&model), retired));
                    origin.fleet = origin.fleet.map(|old| old.with(fleet));
                    one.served.with_model(model)
                }
            };
            origins.insert(number, origin);
            served.insert(number, model);
        }
        self.life.records.change(name, |record| {
            let found = target.found.clone();
            let given = target.given.clone();
            record.origin = Some(Arc::new(Origin { found, fingerprint, draft, given, versions: origins }));
        });
        self.swap_in(name, served);
        tracing::info!("successfully loaded '{name}'");
        // Who asks for fewer instances wants their memory back when the call returns. A backend that asks may be in one of them.
        if !target.called {
            for (model, retired) in ending {
                model.queue().wait_ended(&retired, LAST_EXECUTION);
            }
        }
    }

    fn swap_in(&self, name: &str, served: BTreeMap<i64, Arc<Served>>) {
        let ready =
            |model| VersionEntry { state: ModelState::Ready, reason: String::new(), model: Some(model) };
        let fresh: BTreeMap<i64, VersionEntry> =
            served.into_iter().map(|(number, model)| (number, ready(model))).collect();
        let mut drained = Vec::new();
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            entry.reason = None;
            (entry.requested, entry.unreadable) = (true, false);
            let previous = std::mem::replace(&mut entry.versions, fresh.clone());
            // The old versions end when nobody who has looked them up holds them.
            for number in previous.into_keys() {
                entry.versions.entry(number).or_insert(VersionEntry {
                    state: ModelState::Unavailable,
                    reason: UNLOADED.to_owned(),
                    model: None,
                });
            }
            entry.settle();
            // A drain that has begun meanwhile has passed this model by: it ends here.
            if self.is_draining() {
                drained.extend(entry.versions.values_mut().filter_map(|version| version.model.take()));
                entry.latest = None;
            }
        });
        for model in drained {
            model.queue().close();
        }
    }

    /// UNAVAILABLE => LOADING; a model that serves stays READY.
    pub(crate) fn mark_loading(&self, name: &str, versions: &[i64]) {
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            (entry.requested, entry.unreadable) = (true, false);
            if entry.latest.is_some() {
                return;
            }
            entry.reason = None;
            entry.versions.retain(|_, version| version.state == ModelState::Unloading);
            for number in versions {
                let loading = VersionEntry { state: ModelState::Loading, reason: String::new(), model: None };
                entry.versions.insert(*number, loading);
            }
        });
    }

    /// The model could not be read; if nothing of it serves, that is no reason for the server not to be ready.
    pub(crate) fn mark_unreadable(&self, name: &str) {
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            entry.unreadable = true;
        });
    }

    /// LOADING => UNAVAILABLE; a model that serves stays READY. Returns what the caller is told.
    pub(crate) fn load_failed(&self, name: &str, failure: LoadFailure) -> ServeError {
        self.change(|index| {
            let entry = index.models.entry(name.to_owned()).or_default();
            entry.requested = true;
            if entry.latest.is_none() {
                mark_failed(entry, &failure);
            }
        });
        load_error(name, &failure)
    }

    /// Somebody wants the model, which serves already.
    pub(crate) fn want(&self, name: &str) {
        if !self.index.load().models.get(name).is_some_and(|entry| entry.requested) {
            self.change(|index| index.models.entry(name.to_owned()).or_default().requested = true);
        }
    }
}

/// Any => UNAVAILABLE: nothing of it is left but the reason.
pub(super) fn mark_failed(entry: &mut ModelEntry, failure: &LoadFailure) {
    let reason = failure.error.message.clone();
    entry.versions.clear();
    if failure.versions.is_empty() {
        entry.reason = Some(reason);
        return;
    }
    entry.reason = None;
    for version in &failure.versions {
        let own = failure.version.is_none_or(|failed| failed == *version);
        let reason = if own { reason.clone() } else { "another version failed to load".to_owned() };
        let state = ModelState::Unavailable;
        entry.versions.insert(*version, VersionEntry { state, reason, model: None });
    }
    entry.settle();
}
