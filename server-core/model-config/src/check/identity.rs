//! Name, backend, platform, and the files that a model names.

use super::{Checker, stays_inside};
use crate::draft::Draft;
use crate::finding::{Finding, Severity};
use crate::normalise::platforms_of;

/// The files that a configuration names and that do not lie where it may name them.
pub(crate) fn files(draft: &Draft) -> Vec<Finding> {
    let config = &draft.proto;
    let mut findings = Vec::new();
    let mut leaves = |field: &str, message: String| {
        findings.push(draft.finding(Severity::Error, field, message));
    };
    let (runtime, file) = (&config.runtime, &config.default_model_filename);
    if !runtime.is_empty() && !stays_inside(runtime) {
        leaves("runtime", format!("runtime '{runtime}' leaves the backend's directory"));
    }
    if !file.is_empty() && !stays_inside(file) {
        let message = format!("default_model_filename '{file}' leaves the version's directory");
        leaves("default_model_filename", message);
    }
    for (capability, file) in &config.cc_model_filenames {
        if !stays_inside(file) {
            let message = format!("cc_model_filenames has '{file}', which leaves the version's directory");
            leaves(&format!("cc_model_filenames.{capability}"), message);
        }
    }
    findings
}

impl Checker<'_> {
    pub(super) fn identity(&mut self, directory: &str) {
        let config = self.config;
        if config.name != directory {
            let message = format!(
                "unexpected directory name '{directory}' for model '{}', directory name must equal model name",
                config.name
            );
            self.error("name", message).help("leave the field out, or rename the directory");
        }
        if !self.is_ensemble() {
            self.backend();
        }
        self.findings.extend(files(self.draft));
    }

    fn backend(&mut self) {
        let (backend, platform) = (&self.config.backend, &self.config.platform);
        if backend.is_empty() {
            let message = if platform.is_empty() {
                format!("model '{}' names no backend", self.config.name)
            } else {
                format!(
                    "model '{}' names no backend, and none belongs to platform '{platform}'",
                    self.config.name
                )
            };
            let field = if platform.is_empty() { "backend" } else { "platform" };
            self.error(field, message).help("add a line such as `backend: \"identity\"`");
            return;
        }
        if !backend.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let message = format!("backend name '{backend}' may hold letters, digits, '_' and '-' only");
            self.error("backend", message);
        }
        let (owners, own) = platforms_of(platform, backend);
        if let Some(owner) = owners.filter(|owner| owner != backend) {
            let message = format!("platform '{platform}' belongs to backend '{owner}', not to '{backend}'");
            self.error("platform", message).help("one of the two fields is enough");
        } else if !platform.is_empty() && !own.is_empty() && !own.contains(&platform.as_str()) {
            let message = format!("platform '{platform}' is none of backend '{backend}'");
            self.error("platform", message)
                .help(format!("it is '{}', or leave the field out", own.join("' or '")));
        }
    }
}
