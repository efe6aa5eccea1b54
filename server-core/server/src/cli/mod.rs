//! The command line: `trireme serve` with tritonserver's flags, `trireme check`, `trireme chat`, `trireme batch`,
//! `trireme healthcheck`, `trireme conformance`, `trireme new-backend` and `trireme plan`.
//!
//! The flags of `serve` are rows of one [`table`]: parsing, help and `docs/flags.md` come from it.

mod command;
mod document;
mod flag;
mod flags;
pub(crate) mod grammar;
mod review;
mod table;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::FromArgMatches;

pub use document::flags_document;
pub use flag::{Effect, Flag};
pub use flags::{
    Arguments, Batch, Chat, Check, Conformance, ControlModeFlag, HealthCheck, LogFormatFlag, NewBackend,
    Serve,
};
pub use grammar::Grammar;
pub use review::Finding;
pub use table::TABLE;

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Serve the models of one or more repositories.
    Serve(Box<Serve>),
    /// Read a whole repository without serving it.
    Check(Check),
    /// Hold a conversation.
    Chat(Chat),
    /// Answer the lines of a file.
    Batch(Batch),
    /// Ask a running server how it is.
    HealthCheck(HealthCheck),
    /// Try a backend library.
    Conformance(Conformance),
    /// Make the crate of a new backend.
    NewBackend(NewBackend),
    /// Write a plan of a checkpoint.
    Plan(Arguments),
    /// Show a model's step on a GPU as it is launched.
    Explain(Arguments),
    /// Show and time the sizes that a model's steps have on a GPU.
    Profile(Arguments),
}

/// Reads a command line; the first argument is the program's name.
///
/// # Errors
/// What is wrong with it, or the help that was asked for, to be printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let matches = command::command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some(("check", matches)) => Check::from_arg_matches(matches).map(Command::Check),
        Some(("chat", matches)) => Chat::from_arg_matches(matches).map(Command::Chat),
        Some(("batch", matches)) => Batch::from_arg_matches(matches).map(Command::Batch),
        Some(("healthcheck", matches)) => HealthCheck::from_arg_matches(matches).map(Command::HealthCheck),
        Some(("conformance", matches)) => Conformance::from_arg_matches(matches).map(Command::Conformance),
        Some(("new-backend", matches)) => NewBackend::from_arg_matches(matches).map(Command::NewBackend),
        Some(("plan", matches)) => Arguments::from_arg_matches(matches).map(Command::Plan),
        Some(("explain", matches)) => Arguments::from_arg_matches(matches).map(Command::Explain),
        Some(("profile", matches)) => Arguments::from_arg_matches(matches).map(Command::Profile),
        Some((_, matches)) => Ok(Command::Serve(Box::new(Serve::new(matches)))),
        None => Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand)),
    }
}
