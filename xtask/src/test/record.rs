//! The last full run, kept in `docs/full-test.md` with its commit and date.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::counts::Counts;
use crate::process;
use crate::workspace::Workspace;

pub(crate) fn write(
    workspace: &Workspace,
    tiers: &[String],
    total: &Counts,
    broken: &[String],
) -> Result<()> {
    let git =
        |args: &[&str]| process::output(Command::new("git").current_dir(&workspace.root).args(args), "git");
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain"])?.trim().is_empty();
    let date = process::output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]), "date")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = String::from("# The last full test run\n\nWritten by `cargo xtask test --full`.\n\n");
    let state = if changed { ", with uncommitted changes" } else { "" };
    writeln!(text, "Commit {}{state}, {}, {cores} cores.\n", commit.trim(), date.trim())?;
    writeln!(text, "```\n{}\n{total}\n```", tiers.join("\n"))?;
    for line in broken {
        writeln!(text, "- failed: {line}")?;
    }
    let path = workspace.root.join("docs/full-test.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
