//! `trireme-plan CHECKPOINT -o 1/model.plan`: writes a plan of a checkpoint.
#![allow(clippy::print_stderr)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use trireme_llm::plan::{PlanOptions, tuning_device, write};

const USAGE: &str = "usage: trireme-plan CHECKPOINT -o FILE.plan [--by-reference] [--profile BATCH,TOKENS]... [--tuning FILE]...

CHECKPOINT is a Hugging Face folder or a .gguf file. The plan holds its weights, or with --by-reference their paths from the
plan's folder. A profile is MIN:OPT:MAX,MIN:OPT:MAX, of the batch and of the tokens. A tuning
file is what the backend 'tensorrtllm' has timed on a GPU (`tuning_cache` of docs/cuda.md), one of each kind of GPU.";

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
            "--tuning" => options.tuning.push(tuning(Path::new(&value()?))?),
            "--profile" => options.profiles.push(value()?.parse()?),
            other if other.starts_with('-') => return Err(format!("unknown argument '{other}'")),
            path if checkpoint.is_none() => checkpoint = Some(PathBuf::from(path)),
            other => return Err(format!("'{other}' is one argument too many")),
        }
    }
    let checkpoint = checkpoint.ok_or("no checkpoint is given")?;
    Ok(Some((checkpoint, to.ok_or("no output is given")?, options)))
}

/// A table and its device.
fn tuning(path: &Path) -> Result<(String, Vec<u8>), String> {
    let table = std::fs::read(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    let device = tuning_device(&table).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((device, table))
}
