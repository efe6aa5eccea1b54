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
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    // Started under the name `tritonserver`, the program behaves as `trireme serve`.
    let is_tritonserver = name.is_some_and(|name| name == "tritonserver");
    if is_tritonserver {
        arguments.insert(1, "serve".into());
    }
    match parse(arguments) {
        Ok(Command::Serve(flags)) => trireme::serve(&flags),
        Ok(Command::Check(flags)) => trireme::check(&flags),
        Ok(Command::Chat(flags)) => trireme::chat(&flags),
        Ok(Command::HealthCheck(flags)) => trireme::health_check(&flags),
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
