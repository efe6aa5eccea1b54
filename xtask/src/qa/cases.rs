//! `tests/qa/cases.toml`: every case that upstream's scripts name, by suite, combination and test method. It is the
//! denominator: what is not run is a miss.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

use super::results;
use super::suites::Suite;

#[derive(Deserialize)]
pub(crate) struct Cases {
    pub(crate) group: Vec<Group>,
}

/// The tests of one combination, in the order of the script. A test that is named twice runs twice.
#[derive(Deserialize, PartialEq, Eq, Clone)]
pub(crate) struct Group {
    pub(crate) suite: String,
    pub(crate) script: String,
    pub(crate) server: String,
    pub(crate) environment: String,
    pub(crate) tests: Vec<String>,
}

pub(crate) fn read(path: &Path) -> Result<Cases> {
    toml::from_str(&super::read(path)?).with_context(|| format!("{} is not a list of cases", path.display()))
}

/// Writes the list from what the scripts asked for; suites that were not listed keep what they have.
pub(crate) fn write(workspace: &Workspace, path: &Path, from: &Path, listed: &[&Suite]) -> Result<()> {
    let mut groups: Vec<Group> = if path.is_file() { read(path)?.group } else { Vec::new() };
    groups.retain(|group| listed.iter().all(|suite| suite.name != group.suite));
    for suite in listed {
        let file = super::folder(workspace).join("results").join(format!("{}.listed.jsonl", suite.name));
        for case in results::read(&file)? {
            let same = |group: &&mut Group| {
                group.suite == suite.name
                    && (group.script == case.script)
                    && group.server == case.server
                    && group.environment == case.environment
            };
            if let Some(group) = groups.iter_mut().find(same) {
                group.tests.push(case.test);
            } else {
                groups.push(Group {
                    suite: suite.name.to_owned(),
                    script: case.script,
                    server: case.server,
                    environment: case.environment,
                    tests: vec![case.test],
                });
            }
        }
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(from).args(["describe", "--tags", "--always"]);
    let tag = process::output(&mut git, "git describe").unwrap_or_default();
    let mut text = format!(
        "# Written by `cargo xtask qa --list` from the scripts of triton-inference-server/server {}.\n",
        if tag.trim().is_empty() { "v2.51.0 (e0f0734d61c789535ac58c22b79d67eabc5d7477)" } else { tag.trim() }
    );
    for group in &groups {
        let _ = writeln!(text, "\n[[group]]\nsuite = {:?}\nscript = {:?}", group.suite, group.script);
        let _ =
            writeln!(text, "server = {:?}\nenvironment = {:?}\ntests = [", group.server, group.environment);
        for test in &group.tests {
            let _ = writeln!(text, "    {test:?},");
        }
        text.push_str("]\n");
    }
    std::fs::write(path, text)?;
    let cases: usize = groups.iter().map(|group| group.tests.len()).sum();
    println!("{} names {cases} cases", workspace.shown(path));
    Ok(())
}
