//! One model: what is to be done, and the doing of it up to the swap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use trireme_model_config::{Draft, Severity};
use trireme_repository::{Fingerprint, FoundVersion};

use super::group::Outcome;
use super::records::Record;
use super::target::Target;
use crate::core::Core;
use crate::error::ServeError;
use crate::fleet::FleetChange;
use crate::load::{LoadFailure, LoadedModel};
use crate::model::ModelVersion;
use crate::options::ControlMode;
use crate::served::Served;
use crate::source;
use crate::statistics::lock;

/// All versions of a model, ready to be swapped in.
pub(crate) struct Built {
    pub(crate) draft: Draft,
    pub(crate) fresh: Vec<LoadedModel>,
    pub(crate) kept: Vec<Kept>,
}

/// A version that goes on serving.
pub(crate) struct Kept {
    pub(crate) served: Arc<Served>,
    /// What it becomes, if something about it changes.
    pub(crate) revised: Option<(Arc<ModelVersion>, FleetChange)>,
}

type Serving = BTreeMap<i64, Arc<Served>>;

impl Core {
    /// Loads one model whose steps, if it is an ensemble, have been loaded. A failure leaves what serves, unless it is
    /// an ensemble that no longer fits its steps.
    pub(crate) fn load_one(&self, name: &str, target: &Target) -> Result<Outcome, ServeError> {
        if self.is_draining() {
            return Err(ServeError::unavailable("the server is shutting down"));
        }
        if let Some(problem) = source::problem(&self.options, &target.found, target.given.is_some()) {
            let failure: LoadFailure = ServeError::invalid(problem.clone()).into();
            self.mark_unreadable(name);
            if self.options.control_mode == ControlMode::Explicit {
                // Nobody has asked for the one that serves to go.
                let _ = self.load_failed(name, failure);
                return Err(not_polled(name, &problem));
            }
            if problem != trireme_repository::IN_TWO {
                // It serves on as it was.
                return Err(self.load_failed(name, failure));
            }
            // Nobody knows which of the two is meant, so that the one that serves has to go, too.
            self.withdraw(name, &failure);
            return Err(load_error(name, &failure));
        }
        let record = self.life.records.get(name);
        let fingerprint = match &record.origin {
            // Nothing is read again but the steps, so that a change of the files is still to be followed.
            Some(origin) if target.again => origin.fingerprint.clone(),
            _ => Fingerprint::of(&target.found).map_err(|error| {
                let dir = target.found.dir.display();
                let error = ServeError::invalid(format!("the directory '{dir}' cannot be read: {error}"));
                self.load_failed(name, error.into())
            })?,
        };
        if target.seen.as_ref().is_some_and(|seen| *seen != fingerprint) {
            tracing::info!(model = name, "its directory is being written: left until it is still");
            return Ok(Outcome::Unchanged);
        }
        self.life.records.change(name, |record| record.asked |= target.asked);
        if self.is_as_wanted(name, target, &record, &fingerprint) {
            self.want(name);
            return Ok(Outcome::Unchanged);
        }
        let (serving, _) = self.serving(name);
        self.life.records.change(name, |record| record.steps.clone_from(&target.steps));
        let started = trireme_telemetry::clock::now_ns();
        match self.build(target, &fingerprint, &serving) {
            Ok(built) => {
                self.commit(name, target, fingerprint, built, started);
                Ok(Outcome::Changed)
            }
            Err(failure) if target.again => {
                self.withdraw(name, &failure);
                Err(load_error(name, &failure))
            }
            Err(failure) => {
                if !serving.is_empty() {
                    self.life.records.change(name, |now| now.steps = record.steps);
                }
                Err(self.load_failed(name, failure))
            }
        }
    }

    /// Whether the model serves just as it is in its directory, and nobody wants it in another way.
    pub(crate) fn is_as_wanted(
        &self,
        name: &str,
        target: &Target,
        record: &Record,
        fingerprint: &Fingerprint,
    ) -> bool {
        if target.again || target.given.is_some() || !self.serving(name).1 {
            return false;
        }
        record.origin.as_ref().is_some_and(|origin| {
            // On behalf of an ensemble a model is taken as somebody has set it up.
            let set_up = !target.asked && origin.given.is_some();
            set_up || origin.is_current(&target.found, fingerprint)
        })
    }

    /// The versions that take requests, and whether none of the model's versions is missing.
    fn serving(&self, name: &str) -> (Serving, bool) {
        let index = self.index.load();
        let Some(entry) = index.models.get(name) else { return (Serving::new(), false) };
        let ready = entry.versions.iter().filter_map(|(number, version)| {
            let model = version.model.as_ref().filter(|model| !model.is_lost())?;
            Some((*number, Arc::clone(model)))
        });
        let ready: Serving = ready.collect();
        let complete = entry.latest.is_some()
            && entry
                .versions
                .iter()
                .all(|(number, version)| version.model.is_none() || ready.contains_key(number));
        (ready, complete)
    }

    /// Makes all versions that the policy wants. One that fails fails all.
    fn build(
        &self,
        target: &Target,
        fingerprint: &Fingerprint,
        serving: &Serving,
    ) -> Result<Built, LoadFailure> {
        let found = &target.found;
        let draft = match &target.draft {
            Some(draft) => draft.clone(),
            None => source::read(found, target.given.as_ref().map(|given| given.config.as_str()))?,
        };
        // Under the lock of `run_again` no backend may be called.
        if target.again && !source::is_ensemble(&draft) {
            return Err(ServeError::invalid("it is no longer an ensemble, and is to be loaded anew").into());
        }
        let versions = source::versions(&draft, found)?;
        let numbers: Vec<i64> = versions.iter().map(|version| version.number).collect();
        self.mark_loading(&found.name, &numbers);
        let failed = |version: Option<i64>| {
            let versions = numbers.clone();
            move |error| LoadFailure { error, versions, version }
        };
        self.check_steps(&found.name, &draft).map_err(failed(None))?;
        let record = self.life.records.get(&found.name);
        let reusable = record.origin.as_ref().map(|origin| origin.reusable(found, fingerprint, &draft));
        let reuse = |version: &FoundVersion| {
            let kept = reusable.as_ref().is_some_and(|all| all.contains(&version.number));
            serving.get(&version.number).filter(|_| kept)
        };
        let files = target.given.as_ref().and_then(|given| given.files.as_ref());
        let missing: Vec<&FoundVersion> =
            versions.iter().filter(|version| reuse(version).is_none()).collect();
        let load = |version: &&FoundVersion| {
            // Whoever has one must not wait for these: an ensemble is looked at again under a lock.
            let _permit = (!target.called && !target.again).then(|| self.life.permits.take(&found.name));
            let loaded = self.loader().load_version(found, &draft, version, &numbers, files);
            loaded.map_err(failed(Some(version.number)))
        };
        let fresh = at_once(&missing, self.options.load_threads, load)?;
        let mut kept = Vec::new();
        for (version, served) in versions.iter().filter_map(|version| Some((version, reuse(version)?))) {
            let one = self.keep(target, &draft, served, &numbers);
            kept.push(one.map_err(failed(Some(version.number)))?);
        }
        Ok(Built { draft, fresh, kept })
    }

    /// A version that serves, under a draft that may differ in instances and version policy.
    fn keep(
        &self,
        target: &Target,
        draft: &Draft,
        served: &Arc<Served>,
        numbers: &[i64],
    ) -> Result<Kept, ServeError> {
        let old = &served.config().proto;
        let same_groups = old.instance_group == draft.proto.instance_group;
        if same_groups && old.version_policy == draft.proto.version_policy && served.versions() == numbers {
            return Ok(Kept { served: Arc::clone(served), revised: None });
        }
        // What the backend completed stays.
        let mut revised = draft.clone();
        revised.proto = old.clone();
        revised.proto.instance_group.clone_from(&draft.proto.instance_group);
        revised.proto.version_policy.clone_from(&draft.proto.version_policy);
        let config = source::check(&self.options, &revised, &target.found)?;
        let record = self.life.records.get(&target.found.name);
        let fleet = record
            .origin
            .and_then(|origin| origin.versions.get(&served.version())?.fleet.clone())
            .ok_or_else(|| ServeError::internal("a version without instances cannot be changed in place"))?;
        let change = fleet.prepare(&config, served)?;
        let json = trireme_model_config::config_json(&config.proto);
        let model = Arc::new(served.revised(config, json, numbers.to_vec()));
        Ok(Kept { served: Arc::clone(served), revised: Some((model, change)) })
    }

    /// Every step of an ensemble needs a version that takes requests.
    fn check_steps(&self, name: &str, draft: &Draft) -> Result<(), ServeError> {
        let index = self.index.load();
        for (number, (step, version)) in source::steps(draft).into_iter().enumerate() {
            let found = index.find(&step, (version > 0).then_some(version));
            let why = match found {
                Ok(model) if !model.is_lost() => continue,
                Ok(model) => model.lost_error().message,
                Err(error) => error.message,
            };
            let version = if version > 0 { format!(" version {version}") } else { String::new() };
            let message = format!(
                "ensemble '{name}' depends on '{step}'{version} (step {number}), which is not available: {why}"
            );
            let field = format!("ensemble_scheduling.step.{number}.model_name");
            return Err(ServeError::invalid(draft.finding(Severity::Error, &field, message).to_string()));
        }
        Ok(())
    }
}

/// Does `work` for all items, on so many threads at most; after a failure nothing more is begun.
fn at_once<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Vec::new());
    let run = || {
        while let Some((number, item)) = { lock(&next).next() } {
            let result = work(item);
            if result.is_err() {
                lock(&next).by_ref().for_each(drop);
            }
            lock(&done).push((number, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            let spawned = std::thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, run);
            if let Err(error) = spawned {
                tracing::warn!("no further thread to load versions: {error}");
                break;
            }
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What a caller is told of a model that could not be found as it should be.
pub(crate) fn not_polled(name: &str, why: &str) -> ServeError {
    ServeError::invalid(format!("failed to load '{name}', failed to poll from model repository: {why}"))
}

/// What a caller is told of a load that failed.
pub(crate) fn load_error(name: &str, failure: &LoadFailure) -> ServeError {
    let code = failure.error.status.label();
    let version =
        failure.version.map(|version| format!("version {version} is at UNAVAILABLE state: {code}: "));
    let (version, reason) = (version.unwrap_or_default(), &failure.error.message);
    ServeError::invalid(format!("load failed for model '{name}': {version}{reason};"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_failure_is_the_last_begun() {
        let items: Vec<u32> = (0..50).collect();
        assert_eq!(
            at_once(&items, 4, |item| Ok::<_, ()>(item * 2)),
            Ok((0..50).map(|item| item * 2).collect())
        );
        let begun = Mutex::new(0);
        let result = at_once(&items, 1, |item| {
            *lock(&begun) += 1;
            if *item == 3 { Err(*item) } else { Ok(*item) }
        });
        assert_eq!((result, *lock(&begun)), (Err(3), 4));
        assert_eq!(at_once(&[], 4, |(): &()| Ok::<_, ()>(())), Ok(Vec::new()));
    }
}
