use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::graph::Needs;
use super::origin::Origin;
use crate::statistics::lock;

/// What is remembered of each model beside the index.
#[derive(Default)]
pub(crate) struct Records(Mutex<BTreeMap<String, Record>>);

/// What is remembered of one model.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// It was asked for by its own name, not only as the step of an ensemble.
    pub(crate) asked: bool,
    /// The steps of an ensemble that somebody wants, whether it could be loaded or not: model and version.
    pub(crate) steps: Vec<(String, i64)>,
    /// What serves was made of.
    pub(crate) origin: Option<Arc<Origin>>,
}

impl Records {
    pub(crate) fn get(&self, name: &str) -> Record {
        lock(&self.0).get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn change(&self, name: &str, edit: impl FnOnce(&mut Record)) {
        edit(lock(&self.0).entry(name.to_owned()).or_default());
    }

    /// Nobody wants the model any more.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// The server ends: nothing keeps the files of load requests any more.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Who needs whom, of all that somebody wants.
    pub(crate) fn needs(&self) -> Needs {
        let records = lock(&self.0);
        let ensembles = records.iter().filter(|(_, record)| !record.steps.is_empty());
        ensembles
            .map(|(name, record)| (name.clone(), record.steps.iter().map(|(step, _)| step.clone()).collect()))
            .collect()
    }

    /// The models that were asked for by their own names.
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        let records = lock(&self.0);
        records.iter().filter(|(_, record)| record.asked).map(|(name, _)| name.clone()).collect()
    }
}
