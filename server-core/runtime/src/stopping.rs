//! What requests find while the server ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::error::ServeError;
use crate::index::Index;
use crate::model::ModelVersion;
use crate::served::Served;

/// The field's text for a request that comes too late.
pub(crate) const STOPPING: &str =
    "Server is stopping, scheduler for model has stopped accepting new inference requests";

/// The models that were served when the end began.
#[derive(Default)]
pub(crate) struct Stopping(BTreeMap<String, Last>);

#[derive(Default)]
struct Last {
    is_ensemble: bool,
    /// Versions whose sequences may go on, the newest last; there as long as one does.
    sequences: Vec<Weak<ModelVersion>>,
}

impl Stopping {
    pub(crate) fn of(index: &Index) -> Self {
        let last = |(name, entry): (&String, &crate::index::ModelEntry)| {
            let models = || entry.versions.values().filter_map(|version| version.model.as_ref());
            let sequences: Vec<&Arc<Served>> = models().filter(|model| model.sequences().is_some()).collect();
            sequences.iter().for_each(|model| model.queue().begin_stop());
            let last = Last {
                is_ensemble: models().any(|model| model.is_ensemble()),
                sequences: sequences.iter().map(|served| Arc::downgrade(&***served)).collect(),
            };
            (name.clone(), last)
        };
        Self(index.models.iter().map(last).collect())
    }

    /// A version for requests of sequences that have begun; its queue refuses all others.
    ///
    /// # Errors
    /// UNAVAILABLE for a model that takes nothing any more, NOT_FOUND for one that was not there.
    pub(crate) fn find(&self, name: &str, version: Option<i64>) -> Result<Arc<Served>, ServeError> {
        let Some(last) = self.0.get(name) else {
            return Err(ServeError::not_found(format!("Request for unknown model: '{name}' is not found")));
        };
        let there = last.sequences.iter().rev().filter_map(Weak::upgrade);
        let mut fitting = there.filter(|model| version.is_none_or(|wanted| wanted == model.version()));
        if let Some(model) = fitting.next() {
            return Ok(Served::new(model));
        }
        let place = if last.is_ensemble { format!("in ensemble '{name}', ") } else { String::new() };
        Err(ServeError::unavailable(format!("{place}{STOPPING}")))
    }
}
