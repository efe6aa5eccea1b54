//! What the shim writes down, a line a test.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize, Clone)]
pub(crate) struct Outcome {
    pub(crate) script: String,
    pub(crate) test: String,
    /// Flags of the server that was started last.
    pub(crate) server: String,
    /// What the suite's script has added to its environment.
    pub(crate) environment: String,
    /// `pass`, `fail`, `skip` or `listed`.
    pub(crate) outcome: String,
    pub(crate) reason: String,
}

pub(crate) fn read(path: &Path) -> Result<Vec<Outcome>> {
    let text = super::read(path)?;
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()));
    text.lines().map(parse).collect()
}
