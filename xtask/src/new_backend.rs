//! `cargo xtask new-backend NAME`: a backend that builds and serves, made from `backend-api/template`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trireme_new_backend::{Name, Sdk, create};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Letters, digits, `_` and `-`, a letter first
    name: String,
    /// Where the new crate goes; backends/NAME of this workspace without it
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The folder of the SDK's crates that a crate outside this workspace depends on; this workspace's without it
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let name = Name::parse(&args.name)?;
    let to = args.path.clone().unwrap_or_else(|| workspace.root.join("backends").join(&name.crate_name));
    let sdk = Sdk::find(&args.sdk.clone().unwrap_or_else(|| workspace.root.join("backend-api")))?;
    create(&name, &to, &sdk)?;
    // Without `..` and links, so that inside and outside are told apart by the names.
    let (to, root) = (to.canonicalize()?, workspace.root.canonicalize()?);
    let inside = to.starts_with(&root);
    if inside {
        join_workspace(&root, &to)?;
    }
    println!("made {}", to.display());
    if inside {
        println!("next: cargo xtask build, then a model with `backend: \"{}\"`", name.backend);
    } else {
        println!("next: cd {} && cargo build --release, then read its README.md", to.display());
    }
    Ok(())
}

/// Makes the copy a member: listed in the root manifest, and its SDK the workspace's.
fn join_workspace(root: &Path, crate_folder: &Path) -> Result<()> {
    let folder = crate_folder.strip_prefix(root).unwrap_or(crate_folder).display().to_string();
    edit(&root.join("Cargo.toml"), |text| with_member(text, &folder))?;
    edit(&crate_folder.join("Cargo.toml"), |text| Ok(with_workspace_sdk(text)))
}

fn edit(path: &Path, change: impl Fn(&str) -> Result<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(path, change(&text)?).with_context(|| format!("cannot write {}", path.display()))
}

/// Adds a member after the last backend, so that the list keeps its order.
fn with_member(manifest: &str, folder: &str) -> Result<String> {
    let member = format!("    \"{folder}\",");
    let mut lines: Vec<&str> = manifest.lines().collect();
    let Some(last) = lines.iter().rposition(|line| line.starts_with("    \"backends/")) else {
        bail!("the root Cargo.toml lists no backends: add \"{folder}\" to its members by hand");
    };
    lines.insert(last + 1, &member);
    Ok(lines.join("\n") + "\n")
}

/// A member takes the SDK from the workspace and is no workspace of its own.
fn with_workspace_sdk(manifest: &str) -> String {
    let kept = manifest.lines().filter(|line| line.trim() != "[workspace]").map(|line| {
        match ["trireme-sdk", "trireme-testing"].iter().find(|name| line.starts_with(**name)) {
            Some(name) => format!("{name} = {{ workspace = true }}"),
            None => line.to_owned(),
        }
    });
    kept.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_joins_after_the_other_backends() {
        let root = "members = [\n    \"backends/a\",\n    \"tests\",\n]\n";
        let expected = "members = [\n    \"backends/a\",\n    \"backends/b\",\n    \"tests\",\n]\n";
        assert_eq!(with_member(root, "backends/b").unwrap(), expected);
        let own = "[dependencies]\ntrireme-sdk = { path = \"x\" }\ntrireme-testing = { path = \"y\" }\n[workspace]\n";
        let member =
            "[dependencies]\ntrireme-sdk = { workspace = true }\ntrireme-testing = { workspace = true }\n";
        assert_eq!(with_workspace_sdk(own), member);
    }
}
