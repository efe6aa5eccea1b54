//! Running other programs with errors that name the program and the mend.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail};

/// The cargo that runs us, in the workspace root.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root);
    command
}

/// Runs to the end with inherited output; a failure names `what`.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if !status.success() {
        bail!("{what} failed ({status}); its own output above says why");
    }
    Ok(())
}

/// Runs to the end and returns standard output; a failure carries the last lines of standard error.
pub(crate) fn output(command: &mut Command, what: &str) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| not_started(command, &error))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        let tail: Vec<&str> = text.lines().rev().take(8).collect();
        bail!("{what} failed ({status}): {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    String::from_utf8(stdout).with_context(|| format!("{what} printed bytes that are not UTF-8"))
}

/// Whether a program of that name can be started from `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Turns "no such file" into a sentence that says what to install.
pub(crate) fn not_started(command: &Command, error: &std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    if error.kind() != ErrorKind::NotFound {
        return anyhow!("cannot start `{program}`: {error}");
    }
    let mend = match program.as_str() {
        "python3" => "install Python 3 with pip (Debian: `apt install python3 python3-pip`)",
        "h2load" => "install it (Debian: `apt install nghttp2-client`)",
        "git" => "install git",
        _ => "install it or put it on PATH",
    };
    anyhow!("`{program}` is not installed: {mend}")
}
