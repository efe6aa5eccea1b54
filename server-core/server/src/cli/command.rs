//! The table as a `clap` command, and the values that were given.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use super::flag::{Effect, Flag};
use super::flags::{Arguments, Batch, Chat, Check, Conformance, HealthCheck, NewBackend};
use super::grammar::{self, Grammar};
use super::table::TABLE;

/// The name of the argument that is no flag.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// The whole command line.
pub(super) fn command() -> Command {
    let check = Check::augment_args(Command::new("check"))
        .about("Read a whole repository without serving it and report every finding with file and line");
    let chat = Chat::augment_args(Command::new("chat"))
        .about("Hold a conversation with a model: one of a running server, or a checkpoint");
    let batch = Batch::augment_args(Command::new("batch"))
        .about("Answer the lines of a file (OpenAI's batch format) with models in this process");
    let healthcheck = HealthCheck::augment_args(Command::new("healthcheck"))
        .about("Ask a running server whether it is ready: 0 if it is, 1 if not");
    let conformance = Conformance::augment_args(Command::new("conformance"))
        .about("Try whether a backend library keeps the promises of the ABI");
    let new_backend =
        NewBackend::augment_args(Command::new("new-backend")).about("Make the crate of a new backend");
    let other =
        |name, about| Arguments::augment_args(Command::new(name)).disable_help_flag(true).about(about);
    Command::new("trireme")
        .about("The Trireme inference server")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(check)
        .subcommand(chat)
        .subcommand(batch)
        .subcommand(healthcheck)
        .subcommand(conformance)
        .subcommand(new_backend)
        .subcommand(other("plan", "Write a model.plan of a checkpoint"))
        .subcommand(other("explain", "Show a model's step on a GPU as it is launched"))
        .subcommand(other("profile", "Show and time the sizes that a model's steps have on a GPU"))
}

fn serve() -> Command {
    let command = Command::new("serve")
        .about("Serve the models of one or more repositories, or one checkpoint")
        .arg(
            Arg::new(CHECKPOINT)
                .value_name("CHECKPOINT")
                .value_parser(OsStringValueParser::new().map(PathBuf::from))
                .conflicts_with("model-repository")
                .help("A checkpoint directory or a .gguf file, in the place of a repository"),
        )
        // As getopt has it: a beginning of a name that is no other's will do, and the last of two values counts.
        .infer_long_args(true)
        .args_override_self(true);
    TABLE.iter().fold(command, |command, (heading, flags)| {
        flags.iter().fold(command.next_help_heading(*heading), |command, flag| command.arg(arg(flag)))
    })
}

fn arg(flag: &'static Flag) -> Arg {
    let help = match flag.effect {
        Effect::Works => flag.help.to_owned(),
        Effect::None(why) => format!("{} No effect: {why}.", flag.help),
        Effect::Refused(why) => format!("{} Refused: {why}.", flag.help),
    };
    let grammar = flag.grammar;
    let mut arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(grammar.placeholder())
        .help(help)
        .action(if flag.repeats { ArgAction::Append } else { ArgAction::Set })
        .allow_hyphen_values(matches!(grammar, Grammar::Whole(i64::MIN..0, _) | Grammar::Level))
        .hide_short_help(flag.effect != Effect::Works);
    if flag.name == "model-repository" {
        arg = arg.required_unless_present(CHECKPOINT);
    }
    arg = match grammar {
        // The only values that need not be UTF-8.
        Grammar::Path(_) => arg.value_parser(OsStringValueParser::new().map(PathBuf::from)),
        _ => arg.value_parser(move |text: &str| grammar.check(text).map(|()| text.to_owned())),
    };
    if !flag.alias.is_empty() {
        arg = arg.visible_alias(flag.alias);
    }
    if !flag.default.is_empty() {
        arg = arg.default_value(flag.default);
    }
    if !flag.alone.is_empty() {
        arg = arg.num_args(0..=1).default_missing_value(flag.alone);
    }
    arg
}

/// The values of a command line; an empty one counts as not given. They have the forms that the table says, or parsing had failed.
pub(super) struct Values<'a>(pub(super) &'a ArgMatches);

impl Values<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get_one::<String>(name).filter(|text| !text.is_empty()).cloned()
    }

    /// The value of a flag with a default.
    pub(super) fn word(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let all = self.0.get_many::<String>(name).into_iter().flatten();
        all.filter(|text| !text.is_empty()).cloned().collect()
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get_one::<PathBuf>(name).filter(|path| !path.as_os_str().is_empty()).cloned()
    }

    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let all = self.0.get_many::<PathBuf>(name).into_iter().flatten();
        all.filter(|path| !path.as_os_str().is_empty()).cloned().collect()
    }

    pub(super) fn truth(&self, name: &str) -> bool {
        self.text(name).as_deref().and_then(grammar::truth).unwrap_or_default()
    }

    /// A whole number; the bounds in the table fit `T`.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse::<i64>().ok()?.try_into().ok()
    }

    pub(super) fn pattern(&self, name: &str) -> Option<regex::Regex> {
        grammar::pattern(&self.text(name)?).ok()
    }

    /// The values that were given on the command line, and not by a default.
    pub(super) fn given(&self, flag: &Flag) -> Vec<String> {
        if self.0.value_source(flag.name) != Some(clap::parser::ValueSource::CommandLine) {
            return Vec::new();
        }
        match flag.grammar {
            Grammar::Path(_) => self.paths(flag.name).iter().map(|path| path.display().to_string()).collect(),
            _ => self.texts(flag.name),
        }
    }
}
