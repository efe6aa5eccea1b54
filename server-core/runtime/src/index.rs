use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_protocol::StatusCode;

use crate::error::ServeError;
use crate::served::Served;
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
    /// It could not even be read, or is in two repositories. As in the field, such models do not make a server unready.
    pub(crate) unreadable: bool,
    /// Its directory is gone. The index shows it no more, but who asks for it is told that it was there.
    pub(crate) gone: bool,
    /// The newest READY version; what a request without a version gets.
    pub(crate) latest: Option<Arc<Served>>,
}

/// One version of a model.
#[derive(Clone)]
pub(crate) struct VersionEntry {
    pub(crate) state: ModelState,
    pub(crate) reason: String,
    pub(crate) model: Option<Arc<Served>>,
}

impl VersionEntry {
    /// READY only as long as there is an instance.
    pub(crate) fn state(&self) -> ModelState {
        match &self.model {
            Some(model) if self.state == ModelState::Ready && model.is_lost() => ModelState::Unavailable,
            _ => self.state,
        }
    }

    /// Why it is not READY, or what is to be known of it if it is.
    pub(crate) fn reason(&self) -> String {
        match &self.model {
            Some(model) if self.state != self.state() => model.lost_error().message,
            Some(model) if self.state == ModelState::Ready => model.remark.clone(),
            _ => self.reason.clone(),
        }
    }
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
            && self.versions.values().all(|entry| match entry.state() {
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
    pub(crate) fn find(&self, name: &str, version: Option<i64>) -> Result<&Arc<Served>, ServeError> {
        let unknown =
            |rest: String| ServeError::not_found(format!("Request for unknown model: '{name}'{rest}"));
        let Some(entry) = self.models.get(name) else { return Err(unknown(" is not found".to_owned())) };
        match version {
            None => entry.latest.as_ref().ok_or_else(|| {
                let reason = entry.why();
                unknown(format!(" has no available versions{reason}"))
            }),
            Some(version) => match entry.versions.get(&version) {
                None if entry.versions.is_empty() => Err(unknown(" is not found".to_owned())),
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
        for (name, entry) in self.models.iter().filter(|(_, entry)| entry.requested || !entry.gone) {
            if entry.versions.is_empty() && !ready_only {
                let state = entry.reason.as_ref().map(|_| ModelState::Unavailable);
                let reason = entry.reason.clone().unwrap_or_default();
                lines.push(IndexEntry { name: name.clone(), version: None, state, reason });
            }
            for (number, version) in &entry.versions {
                let state = version.state();
                if !ready_only || state == ModelState::Ready {
                    lines.push(IndexEntry {
                        name: name.clone(),
                        version: Some(*number),
                        state: Some(state),
                        reason: version.reason(),
                    });
                }
            }
        }
        lines
    }

    /// Whether every requested model that could be read is ready.
    pub(crate) fn all_ready(&self) -> bool {
        self.models.values().filter(|entry| entry.requested && !entry.unreadable).all(ModelEntry::is_ready)
    }

    /// Whether every requested model is ready.
    pub(crate) fn all_loaded(&self) -> bool {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::ModelVersion;
    use crate::queue::Queue;
    use trireme_model_config::Draft;
    use trireme_scheduling::{Direct, Dispatcher, InstanceId, InstanceSlots};
    use trireme_telemetry::Registry;

    fn model(instances: u32) -> Arc<ModelVersion> {
        let text = "backend: \"identity\" max_batch_size: 0\n\
                    input { name: \"X\" data_type: TYPE_FP32 dims: 1 }\n\
                    output { name: \"Y\" data_type: TYPE_FP32 dims: 1 }";
        let mut draft = Draft::parse(None, text.to_owned()).unwrap();
        draft.normalise("m", &[]);
        let (config, _) = draft.check("m").unwrap();
        let dispatcher = Dispatcher::new(Direct::new(), InstanceSlots::new(instances, None));
        let metrics = Registry::new(false).model("m", 1, &[]);
        Arc::new(ModelVersion::new(
            1,
            config,
            "{}".to_owned(),
            vec![1],
            metrics,
            Queue::new(dispatcher, false),
            None,
        ))
    }

    fn index(model: &Arc<ModelVersion>) -> Index {
        let served = Some(Served::new(Arc::clone(model)));
        let version = VersionEntry { state: ModelState::Ready, reason: String::new(), model: served };
        let mut entry = ModelEntry { requested: true, ..ModelEntry::default() };
        entry.versions.insert(1, version);
        entry.settle();
        Index { models: BTreeMap::from([("m".to_owned(), entry)]) }
    }

    #[test]
    fn a_model_is_ready_as_long_as_one_instance_is_left() {
        let model = model(2);
        let index = index(&model);
        model.instance_lost(InstanceId(0));
        assert!(index.all_ready() && index.list(true).len() == 1);
        model.instance_lost(InstanceId(1));
        assert!(!index.all_ready());
        assert!(index.list(true).is_empty());
        let [line]: [IndexEntry; 1] = index.list(false).try_into().unwrap();
        assert_eq!(line.state, Some(ModelState::Unavailable));
        assert!(line.reason.contains("has lost all its instances"), "{}", line.reason);
    }

    #[test]
    fn what_was_looked_up_takes_requests_until_it_is_let_go() {
        let model = model(1);
        let index = index(&model);
        let looked_up = Arc::clone(index.find("m", None).unwrap());
        drop(index);
        assert!(!model.queue().wait_closed(std::time::Duration::ZERO), "still held");
        drop(looked_up);
        assert!(model.queue().wait_closed(std::time::Duration::ZERO));
    }
}
