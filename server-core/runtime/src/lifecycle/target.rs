//! What an operation is to load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trireme_model_config::Draft;
use trireme_protocol::repository::LoadRequest;
use trireme_repository::{Fingerprint, FoundModel};

use super::build::not_polled;
use super::graph::{self, Needs};
use crate::core::Core;
use crate::error::ServeError;
use crate::options::ControlMode;
use crate::overlay::Overlay;
use crate::source;

/// What a load call brings along in the place of what is in the repository.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    /// The configuration as JSON.
    pub(crate) config: String,
    /// The model's files, if any were given.
    pub(crate) files: Option<Arc<Overlay>>,
}

/// A model that is to be loaded.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) found: FoundModel,
    pub(crate) given: Option<Override>,
    /// The state in which the directory was found to be still; in any other it is left.
    pub(crate) seen: Option<Fingerprint>,
    /// The configuration, if it is not to be read.
    pub(crate) draft: Option<Draft>,
    /// Asked for by its name, not only on behalf of an ensemble.
    pub(crate) asked: bool,
    /// A step has changed: also if the model itself has not, and without keeping the old one if it no longer fits.
    pub(crate) again: bool,
    /// A backend asks for it, and may be what others wait for: it takes no permit and waits for no execution.
    pub(crate) called: bool,
    /// It serves already, just so, as was seen when its turn had come.
    pub(crate) settled: bool,
    /// The steps, of an ensemble.
    pub(crate) steps: Vec<(String, i64)>,
}

pub(crate) type Targets = BTreeMap<String, Target>;

impl Override {
    /// What a request brings along; its files are written to a directory of their own.
    pub(crate) fn of(model: &str, request: LoadRequest) -> Result<Option<Self>, ServeError> {
        match request.config {
            Some(config) => {
                let files = match request.files.as_slice() {
                    [] => None,
                    files => {
                        let written = Overlay::write(model, files);
                        Some(Arc::new(written.map_err(|error| not_polled(model, &error.message))?))
                    }
                };
                Ok(Some(Self { config, files }))
            }
            None if request.files.is_empty() => Ok(None),
            None => {
                Err(not_polled(model, "Load parameter 'config' must be specified for model file override"))
            }
        }
    }
}

impl Core {
    /// A model as it is now, with the steps that its configuration names. A configuration that cannot be read has none:
    /// what is wrong is said when it is loaded.
    pub(crate) fn target(&self, found: FoundModel, given: Option<Override>) -> Target {
        let steps = if found.problem.is_some() {
            Vec::new()
        } else {
            let config = given.as_ref().map(|given| given.config.as_str());
            source::draft(&found, config).map(|draft| source::steps(&draft)).unwrap_or_default()
        };
        Target {
            found,
            given,
            seen: None,
            draft: None,
            asked: true,
            again: false,
            called: false,
            settled: false,
            steps,
        }
    }

    /// The targets with the steps of their ensembles. Where models are loaded one by one, those that an ensemble needs
    /// are loaded with it.
    pub(crate) fn with_steps(&self, mut targets: Targets) -> Result<Targets, ServeError> {
        if self.options.control_mode != ControlMode::Explicit {
            return Ok(targets);
        }
        let mut open: Vec<String> = steps_of(targets.values());
        while let Some(name) = open.pop() {
            if targets.contains_key(&name) {
                continue;
            }
            let Some(found) = source::find(&self.options, &name)? else { continue };
            let target = Target { asked: false, ..self.target(found, None) };
            open.extend(steps_of([&target]));
            targets.insert(name, target);
        }
        Ok(targets)
    }

    /// The ensembles, by whatever way, of these models that somebody wants.
    pub(crate) fn dependents(&self, models: &BTreeSet<String>) -> BTreeSet<String> {
        graph::dependents(&self.life.records.needs(), models)
    }

    /// All models that an operation on `targets` can change.
    pub(crate) fn involved(&self, targets: &Targets) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = targets.keys().cloned().collect();
        names.extend(self.dependents(&names));
        names
    }

    /// Whether a load of this target would have nothing to do.
    pub(crate) fn is_settled(&self, name: &str, target: &Target) -> bool {
        if self.is_draining() || source::problem(&self.options, &target.found, false).is_some() {
            return false;
        }
        let record = self.life.records.get(name);
        if record.origin.is_none() {
            return false;
        }
        let Ok(print) = Fingerprint::of(&target.found) else { return false };
        target.seen.as_ref().is_none_or(|seen| *seen == print)
            && self.is_as_wanted(name, target, &record, &print)
    }
}

fn steps_of<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<String> {
    targets.into_iter().flat_map(|target| target.steps.iter().map(|(name, _)| name.clone())).collect()
}

/// Who needs whom among the targets.
pub(crate) fn needs(targets: &Targets) -> Needs {
    let of = |target: &Target| target.steps.iter().map(|(step, _)| step.clone()).collect();
    targets.iter().map(|(name, target)| (name.clone(), of(target))).collect()
}
