//! One model, read wholly without being loaded.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use trireme_model_config::{Capabilities, CheckedConfig, Draft, Finding, Severity, VersionPolicy};

use crate::backend::{BackendPlaces, find_backend, find_runtime};
use crate::found::FoundModel;

/// The server that a model is examined for.
#[derive(Debug, Clone, Copy)]
pub struct ExamineOptions<'a> {
    /// Where backends are.
    pub backend_directory: &'a Path,
    /// Whether a library in the model's directories may be loaded.
    pub allow_model_backends: bool,
    /// One backend in the place of another.
    pub backend_fallback: &'a BTreeMap<String, String>,
    /// What it has.
    pub capabilities: Capabilities,
}

/// What is to be said of a model.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each with its file, and its line where there is one.
    pub findings: Vec<Finding>,
    /// Whether it runs.
    pub verdict: Verdict,
}

/// Whether a model runs. A backend may still refuse it when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Runs,
    /// It would, with this backend, which is not there. Holds its name, and where it was looked for.
    NeedsBackend(String, String),
    /// It does not, and why.
    CannotRun(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("runs"),
            Self::NeedsBackend(backend, _) => write!(f, "needs backend '{backend}'"),
            Self::CannotRun(reason) => write!(f, "cannot run, because {reason}"),
        }
    }
}

/// Reads a model: its directory, its configuration with every rule, its versions, its backend's library.
pub fn examine(model: &FoundModel, options: &ExamineOptions<'_>) -> Report {
    let mut findings = Vec::new();
    for warning in &model.warnings {
        findings.push(Finding::without_place(Severity::Warning, Some(&model.dir), warning.clone()));
    }
    let verdict = verdict(model, options, &mut findings).unwrap_or_else(Verdict::CannotRun);
    Report { findings, verdict }
}

fn verdict(
    model: &FoundModel,
    options: &ExamineOptions<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Verdict, String> {
    if let Some(problem) = &model.problem {
        return Err(problem.clone());
    }
    let mut draft = match &model.config {
        Some(path) => Draft::read(path).map_err(|finding| {
            findings.push(finding);
            "its configuration cannot be read".to_owned()
        })?,
        None => Draft::default(),
    };
    draft.normalise(&model.name, &model.files());
    if model.config.is_none() && draft.proto.backend.is_empty() {
        return Err(
            "it has no config.pbtxt, and no file of its version tells which backend it needs".to_owned()
        );
    }
    let config = match draft.check_for(&model.name, &options.capabilities) {
        Ok((config, warnings)) => {
            findings.extend(warnings);
            config
        }
        Err(found) => {
            findings.extend(found);
            return Err("its configuration breaks a rule".to_owned());
        }
    };
    let policy = VersionPolicy::of(&draft.proto);
    let selection =
        model.select(&policy).map_err(|_| "it has no version that its version policy wants".to_owned())?;
    for version in selection.missing {
        let message = format!("version {version} of the version policy has no directory");
        findings.push(draft.finding(Severity::Warning, "version_policy", message));
    }
    if config.ensemble().is_some() {
        return Ok(Verdict::Runs);
    }
    // Each version may bring a library of its own.
    for version in &selection.versions {
        let places = BackendPlaces {
            backend_directory: options.backend_directory,
            model_dir: &model.dir,
            version_dir: &version.dir,
            allow_model_backends: options.allow_model_backends,
        };
        if let Err(missing) = library(&config, options.backend_fallback, &places) {
            findings.push(draft.finding(Severity::Error, "backend", missing.clone()));
            return Ok(Verdict::NeedsBackend(config.backend, missing));
        }
    }
    Ok(Verdict::Runs)
}

/// Whether the library is there, of the backend or of the one in its place.
fn library(
    config: &CheckedConfig,
    fallback: &BTreeMap<String, String>,
    places: &BackendPlaces<'_>,
) -> Result<(), String> {
    let found = match config.runtime.as_str() {
        "" => find_backend(&config.backend, places),
        runtime => find_runtime(&config.backend, runtime, places),
    };
    let Err(missing) = found else { return Ok(()) };
    match fallback.get(&config.backend).map(|other| find_backend(other, places)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(missing.to_string()),
    }
}
