//! `cargo xtask dist`: one folder that runs where it is put: the server, its programs beside it, the backends under
//! `backends/`, the kernels inside of the CUDA backend.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::{self, Built, Profile};
use crate::kernels;
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder; it must not exist yet, or be one of an earlier run
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `dist` is what is shipped (LTO); `release` builds faster
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Take what is built already, without compiled kernels in the CUDA backend
    #[arg(long)]
    no_build: bool,
}

/// Architectures that kernels are compiled ahead for.
const ARCHS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

/// Programs that the server hands over to.
pub(crate) const PROGRAMS: [&str; 3] = ["trireme", "trireme-plan", "trireme-gpu"];

/// Builds the server and the backends, with the compiled kernels inside of the CUDA backend.
pub(crate) fn with_kernels(workspace: &Workspace, profile: Profile) -> Result<Built> {
    let kernels = kernels::run(workspace)?;
    build::server_and_backends(workspace, profile)?;
    // Once more, with the kernels inside.
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--profile", profile.name(), "--package", "trireme-backend-tensorrtllm"]);
    cargo
        .args(["--features", "trireme-backend-tensorrtllm/embedded-kernels"])
        .env("TRIREME_KERNELS", kernels);
    process::run(&mut cargo, "cargo build")?;
    let built = build::install(workspace, profile)?;
    let library = built.backends.join("tensorrtllm/libtrireme_tensorrtllm.so");
    let inside = kernels_inside(&library, &workspace.target.join("kernels"))?;
    println!("{}: kernels for {} inside", workspace.shown(&library), inside.join(", "));
    Ok(built)
}

/// The architectures whose compiled modules are in a library, each byte of all of them.
fn kernels_inside(library: &Path, kernels: &Path) -> Result<Vec<String>> {
    let code = fs::read(library).with_context(|| format!("cannot read {}", library.display()))?;
    let mut archs = Vec::new();
    for arch in ARCHS {
        let folder = kernels.join(arch);
        let mut modules = 0;
        for file in fs::read_dir(&folder).with_context(|| format!("no kernels in {}", folder.display()))? {
            let file = file?.path();
            let cubin = fs::read(&file)?;
            if cubin.is_empty() || !code.windows(cubin.len()).any(|part| part == cubin) {
                bail!("{} is not in {}", file.display(), library.display());
            }
            modules += 1;
        }
        if modules == 0 {
            bail!("no kernels in {}", folder.display());
        }
        archs.push(arch.to_owned());
    }
    Ok(archs)
}

/// Whether an earlier tree is there. Anything else is refused: a tree is programs, `backends`, in that a folder for each
/// backend, and in these shared libraries.
fn earlier_tree(out: &Path) -> Result<bool> {
    let unreadable = |folder: &Path| format!("cannot look into {}", folder.display());
    match fs::symlink_metadata(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => {
            if !found.with_context(|| unreadable(out))?.is_dir() {
                bail!("{} is no folder: name one", out.display());
            }
        }
    }
    let mut folders = vec![(PathBuf::new(), 0)];
    let mut foreign = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        let path = out.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| unreadable(&path))? {
            let entry = entry.with_context(|| unreadable(&path))?;
            let (kind, name) = (entry.file_type()?, entry.file_name().to_string_lossy().into_owned());
            let inside = folder.join(&name);
            match depth {
                0 if name == "backends" && kind.is_dir() => folders.push((inside, 1)),
                0 if PROGRAMS.contains(&name.as_str()) && kind.is_file() => {}
                1 if kind.is_dir() => folders.push((inside, 2)),
                2 if kind.is_file() && is_library(&name) => {}
                _ => foreign.push(inside.display().to_string()),
            }
        }
    }
    if let Some(name) = foreign.iter().min() {
        bail!("{} holds '{name}', which is no part of a tree: name a folder of its own", out.display());
    }
    Ok(true)
}

/// `libNAME.so`, or with a version behind it.
fn is_library(name: &str) -> bool {
    name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so."))
}

/// Takes away an earlier tree, and nothing else.
fn make_room(out: &Path) -> Result<()> {
    if earlier_tree(out)? {
        fs::remove_dir_all(out).with_context(|| format!("cannot take away {}", out.display()))?;
    }
    Ok(())
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| workspace.target.join("trireme"));
    // Before a build of many minutes; an earlier tree stays until there is another one to put in its place.
    earlier_tree(&out)?;
    let built = if args.no_build {
        let server = workspace.target.join(args.profile.name()).join("trireme");
        Built { server, backends: workspace.backends(args.profile) }
    } else {
        with_kernels(workspace, args.profile)?
    };
    let folder = built.server.parent().unwrap_or(&workspace.target);
    let mut files: Vec<(PathBuf, PathBuf)> =
        PROGRAMS.iter().map(|name| (folder.join(name), out.join(name))).collect();
    for (name, library) in built.libraries(workspace) {
        // Misbehaves on request: for tests only.
        if name != "hostile" {
            let to = build::installed(&out.join("backends"), name);
            files.push((library, to));
        }
    }
    if let Some((missing, _)) = files.iter().find(|(from, _)| !from.is_file()) {
        bail!("{} is not built", workspace.shown(missing));
    }
    make_room(&out)?;
    let mut bytes = 0;
    for (from, to) in &files {
        let shown = workspace.shown(from);
        fs::create_dir_all(to.parent().unwrap_or(&out))
            .with_context(|| format!("cannot make {}", out.display()))?;
        // A copy: what is stripped below must not be the build's own file.
        let _ = fs::remove_file(to);
        fs::copy(from, to).with_context(|| format!("cannot copy {shown}"))?;
        let mut strip = std::process::Command::new("strip");
        process::run(strip.arg("--strip-unneeded").arg(to), "strip")?;
        bytes += fs::metadata(to)?.len();
    }
    println!("{}: {} files, {} MB", workspace.shown(&out), files.len(), bytes / 1_000_000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_module_must_be_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (library, kernels) = (dir.path().join("lib.so"), dir.path().join("kernels"));
        fs::write(&library, b"....one.two..three...").unwrap();
        for (arch, code) in ARCHS.iter().zip(["one", "two", "three"]) {
            fs::create_dir_all(kernels.join(arch)).unwrap();
            fs::write(kernels.join(arch).join("m.cubin"), code).unwrap();
        }
        assert_eq!(kernels_inside(&library, &kernels).unwrap(), ARCHS);
        fs::write(kernels.join("sm_89/m.cubin"), "twoo").unwrap();
        let error = kernels_inside(&library, &kernels).unwrap_err().to_string();
        assert!(error.contains("sm_89/m.cubin is not in"), "{error}");
        fs::remove_file(kernels.join("sm_89/m.cubin")).unwrap();
        assert!(kernels_inside(&library, &kernels).unwrap_err().to_string().contains("no kernels in"));
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tree");
        make_room(&out).unwrap();
        fs::create_dir_all(out.join("backends/old")).unwrap();
        let part = |name: &str| fs::write(out.join(name), "").unwrap();
        for name in ["trireme", "backends/old/libtrireme_old.so", "backends/old/libonnxruntime.so.1.32.0"] {
            part(name);
        }
        for foreign in ["thesis.txt", "backends/thesis.txt", "backends/old/thesis.txt", "backends/libmine.so"]
        {
            part(foreign);
            let error = make_room(&out).unwrap_err().to_string();
            assert!(error.contains(&format!("holds '{foreign}'")), "{error}");
            assert!(out.join("trireme").is_file() && out.join("backends/old/libtrireme_old.so").is_file());
            fs::remove_file(out.join(foreign)).unwrap();
        }
        // A link leads to something of somebody else, whatever its name.
        std::os::unix::fs::symlink(dir.path(), out.join("backends/linked")).unwrap();
        assert!(make_room(&out).unwrap_err().to_string().contains("holds 'backends/linked'"));
        fs::remove_file(out.join("backends/linked")).unwrap();
        assert!(earlier_tree(&out).unwrap() && out.join("trireme").is_file(), "looking takes nothing away");
        make_room(&out).unwrap();
        assert!(!out.exists());
        fs::write(&out, "").unwrap();
        assert!(make_room(&out).unwrap_err().to_string().contains("is no folder"));
        assert!(make_room(&out.join("inside")).is_err(), "what cannot be looked at is not free");
    }
}
