//! Manifests and crate roots: versions live in the workspace manifest only, unsafe code in named crates only.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::workspace::{Package, Workspace};

/// Crates that need unsafe code: the wire, its two sides, kernels, mapped checkpoints, and the memory of ONNX Runtime.
const MAY_BE_UNSAFE: [&str; 8] = [
    "backend-api/abi",
    "backend-api/host",
    "backend-api/sdk",
    "backend-api/testing",
    "backends/cpu",
    "backends/tensorrtllm",
    "backends/llm",
    "backends/onnxruntime",
];

const FORBID: &str = "#![forbid(unsafe_code)]";

pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let shown = workspace.shown(&package.manifest_path);
        let text = read(&package.manifest_path)?;
        let manifest: Table = toml::from_str(&text).with_context(|| format!("cannot read {shown}"))?;
        findings.extend(own_versions(&manifest).into_iter().map(|name| {
            format!("{shown}: `{name}` must be `{{ workspace = true }}`; versions and paths live in the root manifest")
        }));
        findings.extend(unsafe_roots(workspace, package)?);
    }
    Ok(findings)
}

/// Dependencies of a member that do not come from the workspace.
fn own_versions(manifest: &Table) -> Vec<String> {
    const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let mut found = Vec::new();
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    for holder in std::iter::once(manifest).chain(targets.filter_map(Value::as_table)) {
        for table in TABLES.iter().filter_map(|name| holder.get(*name)?.as_table()) {
            for (name, value) in table {
                if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                    found.push(name.clone());
                }
            }
        }
    }
    found
}

fn unsafe_roots(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    if MAY_BE_UNSAFE.contains(&package.folder(&workspace.root).as_str()) {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for target in &package.targets {
        let is_test_or_example =
            target.kind.iter().any(|kind| matches!(kind.as_str(), "test" | "example" | "bench"));
        let is_script = target.kind.iter().any(|kind| kind == "custom-build");
        if !is_test_or_example && !is_script && !read(&target.src_path)?.contains(FORBID) {
            findings.push(format!("{}: add {FORBID}", workspace.shown(&target.src_path)));
        }
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workspace_dependencies_pass() {
        let manifest: Table = toml::from_str(
            "[dependencies]\na = { workspace = true, features = [\"x\"] }\nb = \"1\"\nc.workspace = true\n\
             [dev-dependencies]\nd = { path = \"../d\" }\n[target.'cfg(unix)'.dependencies]\ne = { version = \"1\" }\n",
        )
        .unwrap();
        assert_eq!(own_versions(&manifest), ["b", "d", "e"]);
    }
}
