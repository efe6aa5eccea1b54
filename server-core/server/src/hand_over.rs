//! `trireme plan`, `trireme explain` and `trireme profile`: handed over to programs that know checkpoints and GPUs; the
//! server knows neither.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use trireme_model_config::Draft;

use crate::cli::Arguments;

/// Becomes `trireme-plan` with the same arguments; returns only if that cannot be started.
pub fn plan(flags: &Arguments) -> ExitCode {
    become_program("trireme-plan", None, &flags.arguments)
}

/// Becomes `trireme-gpu explain` with the same arguments; returns only if that cannot be started.
pub fn explain(flags: &Arguments) -> ExitCode {
    gpu("explain", flags)
}

/// Becomes `trireme-gpu profile` with the same arguments; returns only if that cannot be started.
pub fn profile(flags: &Arguments) -> ExitCode {
    gpu("profile", flags)
}

/// Adds the configuration of a model's directory, which only the server can read.
#[expect(clippy::print_stderr, reason = "the report is the program's output")]
fn gpu(command: &str, flags: &Arguments) -> ExitCode {
    let mut arguments = flags.arguments.clone();
    let path =
        arguments.iter().map(|given| Path::new(given).join("config.pbtxt")).find(|path| path.is_file());
    if let Some(path) = path {
        let draft = match Draft::read(&path) {
            Ok(draft) => draft,
            Err(finding) => {
                eprintln!("error: {finding}");
                return ExitCode::FAILURE;
            }
        };
        arguments.extend(["--config".into(), trireme_model_config::config_json(&draft.proto).into()]);
    }
    become_program("trireme-gpu", Some(command), &arguments)
}

#[expect(clippy::print_stderr, reason = "the report is the program's output")]
fn become_program(name: &str, command: Option<&str>, arguments: &[OsString]) -> ExitCode {
    let program = match std::env::current_exe().map(|own| own.with_file_name(name)) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: the program's own folder is not known: {error}");
            return ExitCode::FAILURE;
        }
    };
    let error = Command::new(&program).args(command.map(OsStr::new)).args(arguments).exec();
    eprintln!(
        "error: {}: {error}; it is built by 'cargo xtask build' and belongs beside this program",
        program.display()
    );
    ExitCode::FAILURE
}
