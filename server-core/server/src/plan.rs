//! `trireme plan`: hands over to `trireme-plan`, which knows checkpoints; the server knows none.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::cli::Plan;

const PROGRAM: &str = "trireme-plan";

/// Becomes `trireme-plan` with the same arguments; returns only if that cannot be started.
#[expect(clippy::print_stderr, reason = "the report is the program's output")]
pub fn plan(flags: &Plan) -> ExitCode {
    let here = std::env::current_exe().map(|own| own.with_file_name(PROGRAM));
    let program = match here {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: the program's own folder is not known: {error}");
            return ExitCode::FAILURE;
        }
    };
    let error = Command::new(&program).args(&flags.arguments).exec();
    eprintln!(
        "error: {}: {error}; it is built by 'cargo xtask build' and belongs beside this program",
        program.display()
    );
    ExitCode::FAILURE
}
