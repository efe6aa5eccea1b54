//! The bill of materials of an image, in CycloneDX 1.5: crates that are linked into what is shipped, and Debian packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process;
use crate::workspace::Workspace;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Crate {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// The bill of the server and of `backends` on the packages that `debs` lists.
pub(super) fn write(workspace: &Workspace, debs: &Path, backends: &[String]) -> Result<String> {
    let mut components = crates(workspace, backends)?;
    components.extend(packages(debs)?);
    let own = workspace.packages.iter().find(|package| package.name == "trireme");
    let version = own.map_or("0", |package| package.version.as_str());
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "container", "bom-ref": "image", "name": "trireme", "version": version,
            "licenses": [{ "expression": "Apache-2.0" }],
        }},
        "components": components,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&bill)?))
}

/// The crates that are linked: over normal dependencies from the program and the backends.
fn crates(workspace: &Workspace, backends: &[String]) -> Result<Vec<Value>> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut cargo, "cargo metadata")?)?;
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let shipped = |one: &&Crate| {
        let backend = workspace.packages.iter().find(|package| package.name == one.name);
        let backend = backend.and_then(|package| package.backend_name(&workspace.root));
        one.source.is_none()
            && (one.name == "trireme"
                || backend.is_some_and(|name| backends.iter().any(|known| known == name)))
    };
    let mut open: Vec<&str> = metadata.packages.iter().filter(shipped).map(|one| one.id.as_str()).collect();
    let mut linked: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !linked.insert(id) {
            continue;
        }
        let deps = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        let normal = deps.iter().filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        open.extend(normal.map(|edge| edge.pkg.as_str()));
    }
    let sums = checksums(workspace)?;
    let mut found: Vec<&Crate> =
        metadata.packages.iter().filter(|one| linked.contains(one.id.as_str())).collect();
    found.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(found
        .into_iter()
        .map(|one| {
            let purl = format!("pkg:cargo/{}@{}", one.name, one.version);
            let mut component = json!({
                "type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl,
            });
            if let Some(license) = &one.license {
                // The old way to write "or".
                component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
            }
            if let Some(sum) = sums.get(&(one.name.clone(), one.version.clone())) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
            }
            component
        })
        .collect())
}

/// Of the crates' archives, from the lock file.
fn checksums(workspace: &Workspace) -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let path = workspace.root.join("Cargo.lock");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: Lock = toml::from_str(&text).context("Cargo.lock")?;
    let sum = |one: Locked| Some(((one.name, one.version), one.checksum?));
    Ok(lock.package.into_iter().filter_map(sum).collect())
}

/// Debian packages, from a list of their archives and checksums: `SUM  NAME_VERSION_ARCHITECTURE.deb`.
fn packages(debs: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(debs).with_context(|| format!("cannot read {}", debs.display()))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let parts = line.split_once("  ").and_then(|(sum, file)| {
            let mut parts = file.strip_suffix(".deb")?.split('_');
            Some((sum, parts.next()?, parts.next()?, parts.next()?))
        });
        let (sum, name, version, architecture) =
            parts.with_context(|| format!("{}: no package in '{line}'", debs.display()))?;
        let version = version.replace("%3a", ":");
        let encoded = version.replace('+', "%2B").replace(':', "%3A");
        let purl = format!("pkg:deb/debian/{name}@{encoded}?arch={architecture}");
        found.push(json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "hashes": [{ "alg": "SHA-256", "content": sum }],
        }));
    }
    if found.is_empty() {
        anyhow::bail!("{} names no packages", debs.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_the_names_of_their_archives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "00ff  libcap2_1%3a2.66-4+b1_amd64.deb\n").unwrap();
        let found = packages(file.path()).unwrap();
        assert_eq!(found[0]["version"], "1:2.66-4+b1");
        assert_eq!(found[0]["purl"], "pkg:deb/debian/libcap2@1%3A2.66-4%2Bb1?arch=amd64");
        std::fs::write(file.path(), "00ff  libcap2.deb\n").unwrap();
        assert!(packages(file.path()).unwrap_err().to_string().contains("no package in"));
    }
}
