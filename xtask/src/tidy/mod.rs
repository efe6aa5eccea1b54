//! `cargo xtask tidy`: the house rules as a checker. Each rule says what it holds and where it was broken.

mod manifests;
mod sources;
mod walls;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut findings = walls::check(workspace);
    findings.extend(manifests::check(workspace)?);
    findings.extend(sources::check(workspace)?);
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("{} house rules are broken", findings.len());
}
