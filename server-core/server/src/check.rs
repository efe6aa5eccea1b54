//! `trireme check`: reads a whole repository without serving it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use trireme_model_config::Severity;
use trireme_repository::{ExamineOptions, Verdict, examine, scan};

use crate::cli::Check;
use crate::settings::backend_directory;

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
    let options = ExamineOptions {
        backend_directory: &backends,
        allow_model_backends: flags.allow_model_backends,
        backend_fallback: &BTreeMap::new(),
        capabilities: trireme_runtime::CAPABILITIES,
    };
    let mut fine = true;
    for model in &models {
        let report = examine(model, &options);
        for finding in &report.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            println!("{severity}: {finding}");
        }
        println!("{}: {}", model.name, report.verdict);
        fine &= matches!(report.verdict, Verdict::Runs);
    }
    ExitCode::from(u8::from(!fine))
}
