//! `cargo xtask qa --from DIR`: Triton's own QA clients, unmodified, against `trireme`.
//!
//! DIR is a checkout of the upstream repository; nothing of it is part of ours. Each suite's script runs from a copy in
//! `target/qa`, in a network of its own, with `tests/qa/shim` in the place of `tritonserver` and `python`, and with
//! generated models in the place of upstream's (`models`). What a case is, `tests/qa/cases.toml` says.

mod cases;
mod models;
mod report;
mod results;
mod scratch;
mod stage;
mod suites;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::workspace::Workspace;

use self::stage::Stage;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A checkout of triton-inference-server/server
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A checkout of triton-inference-server/client, for the suites that use its examples
    #[arg(long, value_name = "DIR")]
    clients: Option<PathBuf>,
    /// Only this suite (may be repeated)
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Only the tests whose names this regular expression finds; the table is then not written
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
    /// Write the list of cases, tests/qa/cases.toml, and run nothing
    #[arg(long)]
    list: bool,
    /// Take the server and the backends as the last build has left them
    #[arg(long)]
    no_build: bool,
    /// Suites at a time
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Write the table from the results of earlier runs
    #[arg(long)]
    table: bool,
    /// The commit whose build all results are of; the table says so
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let chosen = suites::choose(&args.suites)?;
    let cases_file = workspace.root.join("tests/qa/cases.toml");
    if args.table {
        return report::write(workspace, &cases_file, args.commit.as_deref());
    }
    if !args.from.join("qa/common/util.sh").is_file() {
        let from = args.from.display();
        bail!("{from} is no checkout of triton-inference-server/server: it has no qa/common/util.sh");
    }
    let built = match (args.list, args.no_build) {
        (true, _) => None,
        (_, true) => Some(build::install(workspace, Profile::Release)?),
        _ => Some(build::server_and_backends(workspace, Profile::Release)?),
    };
    let stage = Stage::prepare(workspace, args, built.as_ref())?;
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let jobs = if stage.isolated() { args.jobs.clamp(1, chosen.len()) } else { 1 };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(suite) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = stage.run(suite) {
                        println!("  {}: {error:#}", suite.name);
                        if let Ok(mut failed) = failed.lock() {
                            failed.push(suite.name);
                        }
                    }
                }
            });
        }
    });
    if args.list {
        return cases::write(workspace, &cases_file, &args.from, &chosen);
    }
    if args.only.is_none() {
        report::write(workspace, &cases_file, args.commit.as_deref())?;
    }
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() { Ok(()) } else { bail!("did not run: {}", failed.join(", ")) }
}

/// Where everything of a run is.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("qa")
}

/// A file's text, with its name in the error.
fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
