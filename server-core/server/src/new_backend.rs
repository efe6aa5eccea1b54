//! `trireme new-backend`: the crate of a new backend, without a checkout.

use std::process::ExitCode;

use trireme_new_backend::{Error, Name, Sdk, create};

use crate::cli::NewBackend;

/// Makes the crate; 1 if that cannot be.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the person at the terminal reads it")]
pub fn new_backend(flags: &NewBackend) -> ExitCode {
    match make(flags) {
        Ok(made) => {
            println!("made {made}\nnext: cd {made} && cargo build --release, then read its README.md");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn make(flags: &NewBackend) -> Result<String, Error> {
    let name = Name::parse(&flags.name)?;
    let to = flags.path.clone().unwrap_or_else(|| name.crate_name.clone().into());
    create(&name, &to, &Sdk::find(&flags.sdk)?)?;
    Ok(to.display().to_string())
}
