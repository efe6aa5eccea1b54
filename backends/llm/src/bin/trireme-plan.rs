//! `trireme-plan CHECKPOINT -o 1/model.plan`: writes a plan of a checkpoint.
#![allow(clippy::print_stderr)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use trireme_llm::plan::{PlanOptions, write};

const USAGE: &str = "usage: trireme-plan CHECKPOINT -o FILE.plan [--by-reference] [--profile BATCH,TOKENS]...

CHECKPOINT is a Hugging Face folder or a .gguf file. The plan holds its weights, or with --by-reference their paths from the
plan's folder. A profile is MIN:OPT:MAX,MIN:OPT:MAX, of the batch and of the tokens.";

fn main() -> ExitCode {
    let (checkpoint, to, options) = match arguments(std::env::args().skip(1)) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match write(&checkpoint, &to, &options) {
        Ok(()) => {
            say(&to.display().to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", checkpoint.display());
            ExitCode::FAILURE
        }
    }
}

/// A reader who has seen enough (`| head`) is no failure.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

type Parsed = (PathBuf, PathBuf, PlanOptions);

/// `None` asks for help.
fn arguments(mut given: impl Iterator<Item = String>) -> Result<Option<Parsed>, String> {
    let (mut checkpoint, mut to, mut options) = (None, None, PlanOptions::default());
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("'{argument}' needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "-o" | "--output" => to = Some(PathBuf::from(value()?)),
            "--by-reference" => options.by_reference = true,
            "--inline" => options.by_reference = false,
            "--profile" => options.profiles.push(value()?.parse()?),
            other if other.starts_with('-') => return Err(format!("unknown argument '{other}'")),
            path if checkpoint.is_none() => checkpoint = Some(PathBuf::from(path)),
            other => return Err(format!("'{other}' is one argument too many")),
        }
    }
    let checkpoint = checkpoint.ok_or("no checkpoint is given")?;
    Ok(Some((checkpoint, to.ok_or("no output is given")?, options)))
}
