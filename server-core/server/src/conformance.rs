//! `trireme conformance`: whether a backend library keeps the promises of the ABI.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use trireme_conformance::{Check, Isolation, Outcome, Problem, Source, Subject, answer_for, run_apart};
use trireme_model_config::{Draft, Finding};

use crate::cli::Conformance;

/// Ends with 0 if nothing failed, 1 if something did, 2 if the question makes no sense.
pub fn conformance(flags: &Conformance) -> ExitCode {
    if let Some(name) = &flags.one {
        // The process of one check.
        let Some(check) = Check::named(name) else { return ExitCode::from(2) };
        answer_for(check, subject(flags));
        return ExitCode::SUCCESS;
    }
    apart(flags)
}

/// Starts a process for each check, and prints each row when its check has ended.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is the program's output")]
fn apart(flags: &Conformance) -> ExitCode {
    let usage = |what: String| {
        eprintln!("error: {what}");
        ExitCode::from(2)
    };
    if !flags.library.is_file() {
        return usage(format!("{} is no file", flags.library.display()));
    }
    if let Some(model) = flags.model.as_deref().filter(|model| !model.is_dir()) {
        return usage(format!("--model {} is no directory", model.display()));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return usage(format!("the program's own path is not known: {error}")),
    };
    let command = |check: &str| {
        let mut command = Command::new(&program);
        command.arg("conformance").arg(&flags.library).args(["--one", check]);
        if let Some(model) = &flags.model {
            command.arg("--model").arg(model);
        }
        command
    };
    let limit = Duration::from_secs(flags.limit_seconds);
    println!("{}", flags.library.display());
    let report = run_apart(&Isolation { command: &command, limit }, |row| {
        println!("{row}");
        if let Outcome::Fail(_) = row.outcome {
            let says = Check::named(row.check).map_or("", |check| check.says);
            eprintln!("{} fails; it holds if {says}", row.check);
        }
    });
    println!("{}", report.total());
    ExitCode::from(u8::from(!report.conforms()))
}

/// The library and the model, with the configuration that a server would make.
fn subject(flags: &Conformance) -> Result<Subject, Problem> {
    let mut subject = Subject::open(Source::Library(&flags.library), flags.model.as_deref())?;
    let Some(directory) = &flags.model else { return Ok(subject) };
    let config = configuration(&subject, directory)?;
    subject.set_config(&config)?;
    Ok(subject)
}

fn configuration(subject: &Subject, directory: &Path) -> Result<String, Problem> {
    let wrong = |finding: Finding| Problem::Config(finding.to_string());
    // Also for `.`, which has no name.
    let name = directory.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("model");
    let path = directory.join("config.pbtxt");
    let mut draft = if path.is_file() { Draft::read(&path).map_err(wrong)? } else { Draft::default() };
    if draft.proto.backend.is_empty() && draft.proto.platform.is_empty() {
        draft.proto.backend = subject.backend_name().to_owned();
    }
    let entries = std::fs::read_dir(subject.version_dir()).into_iter().flatten().flatten();
    let files: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    draft.normalise(name, &files);
    if draft.proto.backend != subject.backend_name() {
        let (named, is) = (&draft.proto.backend, subject.backend_name());
        return Err(Problem::Config(format!("{}: backend '{named}', the library is '{is}'", path.display())));
    }
    let json = trireme_model_config::config_json(&draft.proto);
    if let Some(patch) = subject.complete_config(name, &json)? {
        trireme_model_config::complete(&mut draft.proto, &patch).map_err(Problem::Config)?;
        draft.normalise(name, &files);
    }
    let (checked, _) = draft.check_for(name, &trireme_runtime::CAPABILITIES).map_err(|findings| {
        Problem::Config(findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; "))
    })?;
    Ok(trireme_model_config::config_json(&checked.proto))
}
