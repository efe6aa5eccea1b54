//! `cargo xtask new-backend NAME`: a backend that builds and serves, copied from `backend-api/template`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Letters, digits, `_` and `-`, a letter first
    name: String,
    /// Where the new crate goes; backends/NAME of this workspace without it
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The SDK that a crate outside this workspace depends on; this workspace's without it
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let name = Name::parse(&args.name)?;
    let to = args.path.clone().unwrap_or_else(|| workspace.root.join("backends").join(&name.crate_name));
    if to.exists() && fs::read_dir(&to).map_or(true, |mut entries| entries.next().is_some()) {
        bail!("{} is there already: choose another name or --path", to.display());
    }
    let sdk = args.sdk.clone().unwrap_or_else(|| workspace.root.join("backend-api/sdk"));
    if !sdk.join("Cargo.toml").is_file() {
        bail!("{} is no crate: give --sdk the folder backend-api/sdk of a Trireme checkout", sdk.display());
    }
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    // Without `..` and links, so that inside and outside are told apart by the names.
    let (to, sdk, root) = (to.canonicalize()?, sdk.canonicalize()?, workspace.root.canonicalize()?);
    let inside = to.starts_with(&root);
    copy(&workspace.root.join("backend-api/template"), &to, &name, &sdk)?;
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

/// A backend's two names.
#[derive(Debug, PartialEq)]
struct Name {
    /// The package: as given.
    crate_name: String,
    /// The backend, as `config.pbtxt` and the library's file name have it: a library's name has no `-`.
    backend: String,
}

impl Name {
    fn parse(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            bail!("a backend's name holds letters, digits, `_` and `-`; `{text}` has {bad:?}");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            bail!("a backend's name starts with a letter; `{text}` does not");
        }
        Ok(Self { crate_name: text.to_string(), backend: text.replace('-', "_") })
    }
}

/// Copies the template with its placeholders filled, in file names too.
fn copy(template: &Path, to: &Path, name: &Name, sdk: &Path) -> Result<()> {
    let fill = |text: &str| {
        text.replace("{{name}}", &name.backend)
            .replace("{{crate}}", &name.crate_name)
            .replace("{{sdk_path}}", &sdk.display().to_string())
    };
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries =
        fs::read_dir(template).with_context(|| format!("cannot read the template {}", template.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read the template {}", template.display()))?;
        let target = to.join(fill(&entry.file_name().to_string_lossy()));
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, name, sdk)?;
            continue;
        }
        let text = fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        fs::write(&target, fill(&text)).with_context(|| format!("cannot write {}", target.display()))?;
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
    fn names_are_checked() {
        let name = Name::parse("my-Backend_2").unwrap();
        assert_eq!((name.crate_name.as_str(), name.backend.as_str()), ("my-Backend_2", "my_Backend_2"));
        for bad in ["", "2x", "-x", "a b", "a/b", "..", "ä", "a.b"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_template_is_filled_in_content_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template");
        fs::create_dir_all(template.join("models/{{name}}/1")).unwrap();
        fs::write(template.join("models/{{name}}/config.pbtxt"), "backend: \"{{name}}\"\n").unwrap();
        fs::write(template.join("Cargo.toml"), "name = \"{{crate}}\" sdk = \"{{sdk_path}}\"").unwrap();
        let to = dir.path().join("out");
        copy(&template, &to, &Name::parse("a-b").unwrap(), Path::new("/sdk")).unwrap();
        assert_eq!(fs::read_to_string(to.join("models/a_b/config.pbtxt")).unwrap(), "backend: \"a_b\"\n");
        assert_eq!(fs::read_to_string(to.join("Cargo.toml")).unwrap(), "name = \"a-b\" sdk = \"/sdk\"");
    }

    #[test]
    fn a_member_joins_after_the_other_backends() {
        let root = "members = [\n    \"backends/a\",\n    \"tests\",\n]\n";
        let expected = "members = [\n    \"backends/a\",\n    \"backends/b\",\n    \"tests\",\n]\n";
        assert_eq!(with_member(root, "backends/b").unwrap(), expected);
        let own = "[workspace]\n[dependencies]\ntrireme-sdk = { path = \"x\" }\ntrireme-testing = { path = \"y\" }\n";
        let member =
            "[dependencies]\ntrireme-sdk = { workspace = true }\ntrireme-testing = { workspace = true }\n";
        assert_eq!(with_workspace_sdk(own), member);
    }
}
