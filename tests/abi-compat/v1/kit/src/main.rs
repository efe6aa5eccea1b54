//! The conformance kit as a program: `trireme-kit LIBRARY MODEL` tries all checks, each in a process of its own, and
//! ends with 0 if the library conforms. MODEL is a directory with the whole configuration as `config.json`, and
//! `conformance.json` if there is something to say.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use trireme_conformance::{Check, Isolation, Problem, Source, Subject, answer_for, run_apart};

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [library, model] => all(library, model),
        [library, model, check] => match Check::named(check) {
            Some(check) => {
                answer_for(check, subject(library, model));
                ExitCode::SUCCESS
            }
            None => usage(&format!("there is no check '{check}'")),
        },
        _ => usage("trireme-kit LIBRARY MODEL"),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

fn all(library: &str, model: &str) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return usage(&format!("the program's own path is not known: {error}")),
    };
    let command = |check: &str| {
        let mut command = Command::new(&program);
        command.args([library, model, check]);
        command
    };
    let report = run_apart(&Isolation { command: &command, limit: LIMIT }, |_| {});
    println!("{report}");
    ExitCode::from(u8::from(!report.conforms()))
}

fn subject(library: &str, model: &str) -> Result<Subject, Problem> {
    let model = Path::new(model);
    let mut subject = Subject::open(Source::Library(Path::new(library)), Some(model))?;
    let path = model.join("config.json");
    let config = std::fs::read_to_string(&path)
        .map_err(|error| Problem::Config(format!("{}: {error}", path.display())))?;
    subject.set_config(&config)?;
    Ok(subject)
}
