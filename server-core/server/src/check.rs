//! `trireme check`: reads a whole repository without serving it.

use std::path::Path;
use std::process::ExitCode;

use trireme_model_config::{Draft, Finding, Severity, VersionPolicy};
use trireme_repository::{BackendPlaces, FoundModel, find_backend, scan};

use crate::cli::Check;
use crate::settings::backend_directory;

/// What is to be said of one model.
struct Report {
    findings: Vec<Finding>,
    verdict: Verdict,
}

enum Verdict {
    Runs,
    NeedsBackend(String),
    CannotRun(String),
}

/// Checks a repository; 1 if a model of it cannot run.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is the program's output")]
pub fn check(flags: &Check) -> ExitCode {
    let backends = match backend_directory(flags.backend_directory.as_deref()) {
        Ok(backends) => backends,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(1);
        }
    };
    let models = match scan(std::slice::from_ref(&flags.repository), None) {
        Ok(models) => models,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(1);
        }
    };
    let mut fine = true;
    for model in &models {
        let report = examine(model, &backends);
        for finding in &report.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            println!("{severity}: {finding}");
        }
        match &report.verdict {
            Verdict::Runs => println!("{}: runs", model.name),
            Verdict::NeedsBackend(backend) => println!("{}: needs backend '{backend}'", model.name),
            Verdict::CannotRun(reason) => println!("{}: cannot run, because {reason}", model.name),
        }
        fine &= matches!(report.verdict, Verdict::Runs);
    }
    ExitCode::from(u8::from(!fine))
}

fn examine(model: &FoundModel, backends: &Path) -> Report {
    let cannot = |findings: Vec<Finding>, reason: &str| Report {
        verdict: Verdict::CannotRun(reason.to_owned()),
        findings,
    };
    if let Some(problem) = &model.problem {
        return cannot(Vec::new(), problem);
    }
    let mut draft = match &model.config {
        Some(path) => match Draft::read(path) {
            Ok(draft) => draft,
            Err(finding) => return cannot(vec![finding], "its configuration cannot be read"),
        },
        None => Draft::default(),
    };
    let files = model.versions.last().map(|version| files(&version.dir)).unwrap_or_default();
    draft.normalise(&model.name, &files);
    let findings = match draft.check(&model.name) {
        Ok((_, warnings)) => warnings,
        Err(findings) => return cannot(findings, "its configuration breaks a rule"),
    };
    let available: Vec<i64> = model.versions.iter().map(|version| version.number).collect();
    let chosen = VersionPolicy::of(&draft.proto).select(&available);
    let Some(version) = model.versions.iter().find(|version| chosen.last() == Some(&version.number)) else {
        return cannot(findings, "it has no version that its version policy wants");
    };
    let places = BackendPlaces {
        backend_directory: backends,
        model_dir: &model.dir,
        version_dir: &version.dir,
        allow_model_backends: true,
    };
    let verdict = match find_backend(&draft.proto.backend, &places) {
        Ok(_) => Verdict::Runs,
        Err(_) => Verdict::NeedsBackend(draft.proto.backend.clone()),
    };
    Report { findings, verdict }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
