//! Faults that are built in on purpose: the simulation has to find every one, soon and from any seed.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::program::Program;
use super::spread;
use crate::process::not_started;
use crate::stopwatch::{Stopwatch, pause};
use crate::workspace::Workspace;

/// Seconds in which each has to be found.
const LIMIT: u64 = 10;

/// Builds each fault and looks for it from seeds that were never used before.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let names = names(&workspace.root.join("server-core/scheduling/src"))?;
    if names.is_empty() {
        bail!("the scheduler has no faults to build in");
    }
    let mut missed = Vec::new();
    for name in &names {
        let program = Program::build(workspace, Some(name))?;
        let seed = RandomState::new().hash_one(name);
        let watch = Stopwatch::start();
        match hunt(&program, seed)? {
            Some(found) => {
                println!(
                    "  {name}: found in {:.2} s, {}",
                    watch.seconds(),
                    found.lines().next().unwrap_or("")
                );
            }
            None => {
                println!("  {name}: not found from seed {seed} on");
                missed.push(name.as_str());
            }
        }
    }
    if missed.is_empty() {
        println!("  {} faults built in, all found", names.len());
        return Ok(());
    }
    bail!("faults that the simulation does not find within {LIMIT} s: {}", missed.join(", "))
}

/// What was broken; none if nothing was within the limit.
fn hunt(program: &Program, seed: u64) -> Result<Option<String>> {
    let mut command = program.command(seed, u64::MAX, 20_000);
    let mut child = command.spawn().map_err(|error| not_started(&command, &error))?;
    let watch = Stopwatch::start();
    while child.try_wait().context("cannot wait for the simulation")?.is_none() {
        if watch.elapsed() > Duration::from_secs(LIMIT) {
            child.kill().context("cannot stop the simulation")?;
            child.wait().context("cannot wait for the simulation")?;
            return Ok(None);
        }
        pause(10);
    }
    let output = child.wait_with_output().context("cannot read from the simulation")?;
    Ok(spread::read(&output)?.1)
}

/// Every name in a `mutant!("…")` below this folder.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                names.extend(in_text(&text));
            }
        }
    }
    Ok(names)
}

fn in_text(text: &str) -> impl Iterator<Item = String> {
    text.split("mutant!(\"").skip(1).filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::in_text;

    #[test]
    fn faults_are_found_by_name() {
        let found: Vec<String> = in_text("if mutant!(\"one\") && !mutant!(\"two\") { mutant! {} }").collect();
        assert_eq!(found, ["one", "two"]);
    }
}
