//! `cargo xtask bench frontend`: `identity` behind our front ends, behind a real tritonserver, and a bare echo of the
//! same bytes as the limit. Same loaders, same counts, runs taken in turn.

pub(super) mod cell;
pub(super) mod loader;
mod process_times;
pub(super) mod report;
pub(super) mod servers;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::cell::Cell;
use self::loader::Measured;
use self::report::Row;
use self::servers::Server;
use crate::process;
use crate::test::python_environment;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs of each server in each cell
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// A tenth of the requests: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Only cells whose name holds this text, as in `http/small/64`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    for (program, package) in [("wrk", "wrk"), ("h2load", "nghttp2-client")] {
        if !process::on_path(program) {
            bail!("`{program}` is not installed: install it (Debian: `apt install {package}`)");
        }
    }
    let python = python_environment(workspace)?;
    let folder = workspace.target.join("bench/frontend");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bodies = folder.join("bodies");
    let script = workspace.root.join("tests/peers/bodies.py");
    process::run(
        Command::new(&python).arg(&script).arg("write").arg(&bodies).args(cell::MODELS),
        "bodies.py write",
    )?;

    // Ours first, so that a server that does not start is seen before anything is downloaded.
    let mut servers = vec![servers::trireme(workspace, &folder)?];
    servers.push(servers::tritonserver(workspace, &folder)?);
    servers.push(servers::echo(workspace)?);
    for server in servers.iter().filter(|server| server.speaks_kserve) {
        let mut check = Command::new(&python);
        check.arg(&script).args(["check", &server.http, &server.grpc]).args(cell::MODELS);
        process::run(&mut check, &format!("the check of {}'s answers", server.name))?;
    }

    let loader = loader::Loader { workspace, bodies: &bodies, scratch: &folder };
    let mut rows = Vec::new();
    for cell in Cell::all().filter(|cell| args.only.as_ref().is_none_or(|text| cell.name().contains(text))) {
        let row = measure(&loader, &servers, cell, args)?;
        println!("{}", report::line(&row));
        rows.push(row);
    }
    finish(&rows, &folder)
}

/// All runs of one cell: a warm-up each, then the servers in turn, another one first each time.
fn measure(loader: &loader::Loader<'_>, servers: &[Server], cell: Cell, args: &Args) -> Result<Row> {
    let count = if args.quick { cell.count() / 10 } else { cell.count() };
    let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); servers.len()];
    for server in servers {
        loader.run(server, cell, (count / 10).max(u64::from(cell.concurrency) * 2))?;
    }
    for turn in 0..args.runs as usize {
        for step in 0..servers.len() {
            let which = (turn + step) % servers.len();
            runs[which].push(loader.run(&servers[which], cell, count)?);
        }
    }
    let names = servers.iter().map(|server| server.name).collect();
    Ok(Row { cell, names, runs })
}

fn finish(rows: &[Row], folder: &Path) -> Result<()> {
    let text = report::markdown(rows);
    let path = folder.join("result.md");
    fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{text}");
    let missed = rows.iter().filter(|row| !row.holds()).count();
    if missed > 0 {
        bail!("{missed} of {} cells miss their bar", rows.len());
    }
    Ok(())
}
