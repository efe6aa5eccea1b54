//! The program `trireme`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use trireme::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os().collect()));
    match cli.command {
        Command::Serve(flags) => trireme::serve(&flags),
        Command::Check(flags) => trireme::check(&flags),
    }
}

/// Started under the name `tritonserver`, the program behaves as `trireme serve`.
fn arguments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == "tritonserver") {
        arguments.insert(1, "serve".into());
    }
    arguments
}
