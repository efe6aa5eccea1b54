//! `cargo xtask build`: one cargo call, then every backend in a folder of its own as the server looks for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `release` for daily work, `dist` for what is shipped (LTO, stripped)
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub(crate) profile: Profile,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Profile {
    Release,
    Dist,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }
}

/// Where the results of a build lie.
pub(crate) struct Built {
    pub(crate) server: PathBuf,
    pub(crate) backends: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let built = server_and_backends(workspace, args.profile)?;
    println!("server    {}", workspace.shown(&built.server));
    for (name, _) in backend_packages(workspace) {
        println!("backend   {}", workspace.shown(&installed(&built.backends, name)));
    }
    Ok(())
}

/// Builds what serving needs and nothing else.
pub(crate) fn server_and_backends(workspace: &Workspace, profile: Profile) -> Result<Built> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--profile", profile.name(), "--package", "trireme"]);
    for (_, package) in backend_packages(workspace) {
        cargo.args(["--package", package]);
    }
    // `trireme plan` hands over to a program of theirs.
    cargo.args(["--package", "trireme-llm"]);
    process::run(&mut cargo, "cargo build")?;
    install(workspace, profile)
}

/// Puts backends that cargo has built under `backends/<name>/`.
pub(crate) fn install(workspace: &Workspace, profile: Profile) -> Result<Built> {
    let out = workspace.target.join(profile.name());
    let backends = workspace.backends(profile);
    for (name, package) in backend_packages(workspace) {
        let library = out.join(library_file(name));
        if !library.is_file() {
            bail!("cargo built package {package} but {} is not there", workspace.shown(&library));
        }
        let to = installed(&backends, name);
        link_or_copy(&library, &to).with_context(|| format!("cannot install {}", workspace.shown(&to)))?;
    }
    Ok(Built { server: out.join("trireme"), backends })
}

impl Built {
    /// The name and the library of every backend that a build makes. A folder may hold more, such as the library of ONNX Runtime
    /// that tests and benchmarks fetch: that is no part of what is shipped.
    pub(crate) fn libraries<'w>(&self, workspace: &'w Workspace) -> Vec<(&'w str, PathBuf)> {
        let packages = backend_packages(workspace).into_iter();
        packages.map(|(name, _)| (name, installed(&self.backends, name))).collect()
    }
}

/// (backend name, package name) of every package under `backends/` that makes a loadable library.
fn backend_packages(workspace: &Workspace) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = workspace
        .packages
        .iter()
        .filter_map(|package| Some((package.backend_name(&workspace.root)?, package.name.as_str())))
        .collect();
    found.sort_unstable();
    found
}

fn library_file(name: &str) -> String {
    format!("libtrireme_{name}.so")
}

/// Where a backend lies in a folder of backends.
pub(crate) fn installed(backends: &Path, name: &str) -> PathBuf {
    backends.join(name).join(library_file(name))
}

/// Makes `to` the same file as `from`: a hard link, or a copy where the file system has none.
/// It appears whole or not at all, and a server that has the old one mapped keeps it.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // A link to the same inode would make the rename below do nothing and leave the temporary name behind.
    if same_file(from, to) {
        return Ok(());
    }
    let staging = tempfile::Builder::new().prefix(".installing-").tempdir_in(folder)?;
    let staged = staging.path().join("file");
    if fs::hard_link(from, &staged).is_err() {
        fs::copy(from, &staged)?;
        fs::File::open(&staged)?.sync_all()?;
    }
    fs::rename(&staged, to)
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Package, Target};

    #[test]
    fn what_is_shipped_is_what_a_build_makes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let package = |name: &str, kind: &str| Package {
            name: format!("trireme-backend-{name}"),
            version: "1.0.0".to_owned(),
            manifest_path: root.join(format!("backends/{name}/Cargo.toml")),
            dependencies: Vec::new(),
            targets: vec![Target {
                name: format!("trireme_{name}"),
                kind: vec![kind.to_owned()],
                crate_types: vec![kind.to_owned()],
                src_path: root.join("lib.rs"),
            }],
        };
        let packages = vec![package("two", "cdylib"), package("one", "cdylib"), package("library", "rlib")];
        let workspace = Workspace { root: root.to_owned(), target: root.join("target"), packages };
        let built = Built { server: root.join("trireme"), backends: root.join("installed") };
        // A backend that is no more, and libraries that somebody has put beside ours.
        for file in ["one/libtrireme_one.so", "one/libonnxruntime.so.1.2.3", "old/libtrireme_old.so"] {
            let path = built.backends.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let library = |name: &str| built.backends.join(name).join(format!("libtrireme_{name}.so"));
        assert_eq!(built.libraries(&workspace), [("one", library("one")), ("two", library("two"))]);
    }

    #[test]
    fn a_link_replaces_what_was_there_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("lib.so"), dir.path().join("backends/x/lib.so"));
        fs::write(&from, "one").unwrap();
        link_or_copy(&from, &to).unwrap();
        fs::remove_file(&from).unwrap();
        fs::write(&from, "two").unwrap();
        assert_eq!(
            fs::read_to_string(&to).unwrap(),
            "one",
            "a rebuild must not reach an installed file by itself"
        );
        link_or_copy(&from, &to).unwrap();
        link_or_copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
    }
}
