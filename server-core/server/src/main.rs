//! The program `trireme`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use trireme::cli::{Command, parse};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command line that cannot be read ends with, under either name of the program.
const USAGE: u8 = 2;
const USAGE_OF_TRITONSERVER: u8 = 1;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // Started under the name `tritonserver`, the program behaves as `trireme serve`. So does a container whose arguments
    // begin with that word, because the entry point of upstream's image runs them as a command.
    let is_named = |at: usize| {
        let name = arguments.get(at).map(Path::new).and_then(Path::file_name);
        name.is_some_and(|name| name == "tritonserver")
    };
    let (is_started, is_asked) = (is_named(0), is_named(1));
    let is_tritonserver = is_started || is_asked;
    if is_started {
        arguments.insert(1, "serve".into());
    } else if is_asked && let Some(word) = arguments.get_mut(1) {
        *word = "serve".into();
    }
    match parse(arguments) {
        Ok(Command::Serve(flags)) => trireme::serve(&flags),
        Ok(Command::Check(flags)) => trireme::check(&flags),
        Ok(Command::Batch(flags)) => trireme::batch(&flags),
        Ok(Command::Chat(flags)) => trireme::chat(&flags),
        Ok(Command::HealthCheck(flags)) => trireme::health_check(&flags),
        Ok(Command::Conformance(flags)) => trireme::conformance(&flags),
        Ok(Command::NewBackend(flags)) => trireme::new_backend(&flags),
        Ok(Command::Plan(flags)) => trireme::plan(&flags),
        Ok(Command::Explain(flags)) => trireme::explain(&flags),
        Ok(Command::Profile(flags)) => trireme::profile(&flags),
        Err(error) => {
            let _ = error.print();
            match (error.exit_code(), is_tritonserver) {
                (0, _) => ExitCode::SUCCESS,
                (_, true) => ExitCode::from(USAGE_OF_TRITONSERVER),
                (_, false) => ExitCode::from(USAGE),
            }
        }
    }
}
