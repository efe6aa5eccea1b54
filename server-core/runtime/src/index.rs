use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_protocol::StatusCode;

use crate::error::ServeError;
use crate::model::ModelVersion;
use crate::state::{IndexEntry, ModelState};

/// All models that the server knows of; an immutable snapshot, swapped whole.
#[derive(Clone, Default)]
pub(crate) struct Index {
    pub(crate) models: BTreeMap<String, ModelEntry>,
}

/// One model.
#[derive(Clone, Default)]
pub(crate) struct ModelEntry {
    pub(crate) versions: BTreeMap<i64, VersionEntry>,
    /// Why the model as a whole is not served, if it is not.
    pub(crate) reason: Option<String>,
    /// Whether somebody wants it served: strict readiness counts only those.
    pub(crate) requested: bool,
    /// The newest READY version; what a request without a version gets.
    pub(crate) latest: Option<Arc<ModelVersion>>,
}

/// One version of a model.
#[derive(Clone)]
pub(crate) struct VersionEntry {
    pub(crate) state: ModelState,
    pub(crate) reason: String,
    pub(crate) model: Option<Arc<ModelVersion>>,
}

impl ModelEntry {
    /// Sets `latest` after the versions changed.
    pub(crate) fn settle(&mut self) {
        let ready = self.versions.values().rev().filter(|entry| entry.state == ModelState::Ready);
        self.latest = ready.filter_map(|entry| entry.model.clone()).next();
    }

    fn is_ready(&self) -> bool {
        self.reason.is_none()
            && self.latest.is_some()
            && self.versions.values().all(|entry| match entry.state {
                ModelState::Ready => true,
                // Unloaded on purpose does not count against readiness.
                ModelState::Unloading => true,
                ModelState::Unavailable => entry.reason == UNLOADED,
                ModelState::Loading => false,
            })
    }
}

/// The reason of a version that was unloaded on purpose.
pub(crate) const UNLOADED: &str = "unloaded";

impl Index {
    /// The READY model version for a request.
    pub(crate) fn find(&self, name: &str, version: Option<i64>) -> Result<&Arc<ModelVersion>, ServeError> {
        let unknown =
            |rest: String| ServeError::not_found(format!("Request for unknown model: '{name}'{rest}"));
        let Some(entry) = self.models.get(name) else { return Err(unknown(" is not found".to_owned())) };
        match version {
            None => entry.latest.as_ref().ok_or_else(|| {
                let reason = entry.why();
                unknown(format!(" has no available versions{reason}"))
            }),
            Some(version) => match entry.versions.get(&version) {
                None => Err(unknown(format!(" version {version} is not found"))),
                Some(VersionEntry { state: ModelState::Ready, model: Some(model), .. }) => Ok(model),
                Some(_) => Err(ServeError::new(
                    StatusCode::Unavailable,
                    format!("Request for unknown model: '{name}' version {version} is not at ready state"),
                )),
            },
        }
    }

    /// The lines of the index call.
    pub(crate) fn list(&self, ready_only: bool) -> Vec<IndexEntry> {
        let mut lines = Vec::new();
        for (name, entry) in &self.models {
            if entry.versions.is_empty() && !ready_only {
                let state = entry.reason.as_ref().map(|_| ModelState::Unavailable);
                let reason = entry.reason.clone().unwrap_or_default();
                lines.push(IndexEntry { name: name.clone(), version: None, state, reason });
            }
            for (number, version) in &entry.versions {
                if !ready_only || version.state == ModelState::Ready {
                    lines.push(IndexEntry {
                        name: name.clone(),
                        version: Some(*number),
                        state: Some(version.state),
                        reason: version.reason.clone(),
                    });
                }
            }
        }
        lines
    }

    /// Whether every requested model is ready.
    pub(crate) fn all_ready(&self) -> bool {
        self.models.values().filter(|entry| entry.requested).all(ModelEntry::is_ready)
    }
}

impl ModelEntry {
    fn why(&self) -> String {
        let reason = self.reason.as_deref().or_else(|| {
            self.versions.values().map(|entry| entry.reason.as_str()).find(|reason| !reason.is_empty())
        });
        reason.map(|reason| format!(": {reason}")).unwrap_or_default()
    }
}
