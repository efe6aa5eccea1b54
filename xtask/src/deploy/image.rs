//! `cargo xtask image`: the images of `deploy/docker`, built without a container engine's daemon.
//!
//! ```text
//! cargo build ─▶ dist/      mmdebstrap ─▶ base.tar (Debian without a shell)      cargo metadata, dpkg ─▶ sbom.cdx.json
//!                    └──────────────────┴─▶ buildah ─▶ target/image/cpu/{oci/, trireme-cpu.tar, sbom.cdx.json}
//! ```
//! All times in the image are 0: the same sources and the same Debian packages give the same digest.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{cuda_image, debian, pytest, sbom};
use crate::build::{self, Profile};
use crate::models;
use crate::process;
use crate::test::python_environment;
use crate::workspace::Workspace;

/// Everything that a container starts with has at most this size.
const MOST_BYTES: u64 = 120_000_000;
const PROGRAMS: &[(&str, &str)] =
    &[("buildah", "buildah"), ("skopeo", "skopeo"), ("mmdebstrap", "mmdebstrap")];
const PROGRAMS_TO_RUN: &[(&str, &str)] =
    &[("podman", "podman"), ("runc", "runc"), ("conmon", "conmon"), ("catatonit", "catatonit")];
/// Of Debian 12, as the machine that builds: the C library must not be older than the one that was linked against.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "libc6,libgcc-s1,ca-certificates,tzdata,base-files,netbase";
/// Backends that only tests load.
const NOT_SHIPPED: &[&str] = &["caller", "hostile", "ragged"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the image without rights and ask it what the README asks, then through a Pod manifest
    #[arg(long)]
    test: bool,
    /// Write the context and the Containerfile of the CUDA image on this base instead: IMAGE@sha256:DIGEST
    #[arg(long, value_name = "IMAGE@DIGEST", value_parser = pinned, conflicts_with = "test")]
    cuda_base: Option<String>,
    /// Build the CUDA image on a stand-in for NVIDIA's base, of Debian and NVIDIA's own libraries, and try all of it that
    /// needs no GPU
    #[arg(long, conflicts_with_all = ["test", "cuda_base"])]
    cuda_stand_in: bool,
    /// `dist` is what is shipped (LTO, stripped); `release` is quicker to build
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
}

fn pinned(text: &str) -> Result<String, String> {
    let digest = text.split_once("@sha256:").map(|(_, digest)| digest);
    match digest {
        Some(digest)
            if digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("the base is named by its digest: IMAGE@sha256: and 64 hexadecimal digits".to_owned()),
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    debian::need(PROGRAMS)?;
    if let Some(base) = &args.cuda_base {
        return cuda_image::render(workspace, base, args.profile);
    }
    if args.cuda_stand_in {
        return cuda_image::try_on_a_stand_in(workspace, args.profile);
    }
    let image = Image::new(workspace)?;
    let built = build::server_and_backends(workspace, args.profile)?;
    image.context(workspace, &built)?;
    let digest = image.build()?;
    let size = image.small()?;
    println!(
        "image     {} ({:.1} MB), {digest}",
        workspace.shown(&image.folder.join("oci")),
        megabytes(size)
    );
    println!("archive   {} (podman load -i, docker load -i)", workspace.shown(&image.archive()));
    println!("SBOM      {}", workspace.shown(&image.folder.join("sbom.cdx.json")));
    if args.test {
        process::run(&mut image.tests(workspace, &digest)?, "the tests of the image")?;
    }
    Ok(())
}

/// The tests of an image of what `cargo xtask test` has built: the form of the shipped one, without its optimisation.
pub(super) fn tests(workspace: &Workspace) -> Result<Command> {
    debian::need(PROGRAMS)?;
    let image = Image::new(workspace)?;
    image.context(workspace, &build::install(workspace, Profile::Release)?)?;
    let digest = image.build()?;
    image.small()?;
    image.tests(workspace, &digest)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// What holds the namespaces of a pod.
const PAUSE: &str = "localhost/pause:1";

pub(super) struct Image {
    /// Everything that is made for it.
    pub(super) folder: PathBuf,
    pub(super) containerfile: PathBuf,
    /// In the storage of its folder.
    pub(super) name: String,
}

impl Image {
    fn new(workspace: &Workspace) -> Result<Self> {
        Self::at(workspace, "cpu")
    }

    pub(super) fn at(workspace: &Workspace, kind: &str) -> Result<Self> {
        let folder = workspace.target.join("image").join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let containerfile = workspace.root.join(format!("deploy/docker/{kind}.Containerfile"));
        let image = Self { folder, containerfile, name: format!("localhost/trireme:{kind}") };
        image.configure()?;
        Ok(image)
    }

    fn archive(&self) -> PathBuf {
        self.folder.join("trireme-cpu.tar")
    }

    /// Settings with which buildah and podman run where there is no systemd and where limits cannot be raised.
    fn configure(&self) -> Result<()> {
        let limit = |what| {
            let limit = rustix::process::getrlimit(what);
            limit.maximum.map_or(1 << 20, |most| most.min(1 << 20))
        };
        let files = limit(rustix::process::Resource::Nofile);
        let processes = limit(rustix::process::Resource::Nproc).min(4096);
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n[engine]\n\
             runtime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ninfra_image = \"{PAUSE}\"\n"
        );
        fs::write(self.folder.join("containers.conf"), text)?;
        Ok(())
    }

    /// buildah or podman, with storage of its own.
    pub(super) fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command.arg("--root").arg(self.folder.join("storage"));
        command.arg("--runroot").arg(self.folder.join("run")).args(["--storage-driver", "vfs"]);
        command
    }

    /// What the Containerfile copies.
    pub(super) fn context(&self, workspace: &Workspace, built: &build::Built) -> Result<()> {
        let context = self.folder.join("context");
        if context.exists() {
            fs::remove_dir_all(&context)?;
        }
        let dist = context.join("dist");
        let bin = dist.join("bin");
        fs::create_dir_all(&bin)?;
        for name in crate::dist::PROGRAMS {
            copy(&built.server.with_file_name(name), &bin.join(name))?;
        }
        let mut backends = built.libraries(workspace);
        backends.retain(|(name, _)| !NOT_SHIPPED.contains(name));
        for (name, library) in &backends {
            copy(library, &build::installed(&bin.join("backends"), name))?;
        }
        copy(&workspace.root.join("LICENSE"), &dist.join("LICENSE"))?;
        let base = self.base()?;
        let names: Vec<String> = backends.iter().map(|(name, _)| (*name).to_owned()).collect();
        let bill = sbom::write(workspace, &self.debs(), &names)?;
        fs::write(self.folder.join("sbom.cdx.json"), &bill)?;
        fs::write(dist.join("sbom.cdx.json"), &bill)?;
        copy(&base, &context.join("base.tar"))?;
        fs::write(
            context.join("passwd"),
            "root:x:0:0:root:/:/usr/sbin/nologin\ntrireme:x:1000:1000:trireme:/:/usr/sbin/nologin\n",
        )?;
        let links = context.join("links/opt/tritonserver");
        fs::create_dir_all(links.join("bin"))?;
        symlink("/opt/trireme/bin/trireme", links.join("bin/tritonserver"))?;
        symlink("/opt/trireme/bin/backends", links.join("backends"))?;
        fs::create_dir_all(context.join("links/models"))?;
        // What the package's script would have made.
        let certificates = context.join("links/etc/ssl/certs");
        fs::create_dir_all(&certificates)?;
        fs::write(certificates.join("ca-certificates.crt"), bundle(&base)?)?;
        Ok(())
    }

    /// The packages of the base with their checksums, as `sha256sum` writes them.
    fn debs(&self) -> PathBuf {
        self.folder.join("base.debs")
    }

    /// A small Debian: libraries, certificates and time zones, no shell and no package manager.
    fn base(&self) -> Result<PathBuf> {
        self.debian("base", PACKAGES, &self.debs())
    }

    /// The same with what Ubuntu, and so NVIDIA's base, always has beside it.
    pub(super) fn larger_base(&self) -> Result<PathBuf> {
        self.debian("larger", &format!("{PACKAGES},libstdc++6"), &self.folder.join("larger.debs"))
    }

    fn debian(&self, name: &str, packages: &str, debs: &Path) -> Result<PathBuf> {
        let base = self.folder.join(format!("{name}-{SUITE}.tar"));
        let stamp = self.folder.join(format!("{name}.packages"));
        if base.is_file() && fs::read_to_string(&stamp).is_ok_and(|made| made == packages) {
            return Ok(base);
        }
        println!("  making the base of {SUITE}: {packages}");
        let mut make = Command::new("mmdebstrap");
        make.env("SOURCE_DATE_EPOCH", "0").args(["--quiet", "--variant=extract"]);
        // Nothing is configured in it, so that dpkg's own list stays empty.
        make.env("TRIREME_DEBS", debs);
        make.arg("--extract-hook=cd \"$1/var/cache/apt/archives\" && sha256sum *.deb > \"$TRIREME_DEBS\"");
        make.arg(format!("--include={packages}")).arg(SUITE).arg(&base).args(mirror());
        process::run(&mut make, "mmdebstrap")?;
        fs::write(stamp, packages)?;
        Ok(base)
    }

    /// Builds `context` by a Containerfile, with all times at 0.
    pub(super) fn bud(&self, name: &str, containerfile: &Path, context: &Path) -> Result<()> {
        let mut bud = self.tool("buildah");
        bud.args(["bud", "--isolation", "chroot", "--timestamp", "0", "--quiet", "--pull-never"]);
        bud.args(["--tag", name, "--file"]).arg(containerfile).arg(context);
        process::output(&mut bud, "buildah bud").map(drop)
    }

    fn build(&self) -> Result<String> {
        self.bud(&self.name, &self.containerfile, &self.folder.join("context"))?;
        let layout = self.folder.join("oci");
        let archive = self.archive();
        for old in [&layout, &archive] {
            if old.is_dir() {
                fs::remove_dir_all(old)?;
            } else if old.exists() {
                fs::remove_file(old)?;
            }
        }
        for to in [
            format!("oci:{}:cpu", layout.display()),
            format!("docker-archive:{}:trireme:cpu", archive.display()),
        ] {
            process::output(self.tool("buildah").args(["push", "--quiet", &self.name, &to]), "buildah push")?;
        }
        let mut inspect = Command::new("skopeo");
        inspect.args(["inspect", "--format", "{{.Digest}}"]).arg(format!("oci:{}:cpu", layout.display()));
        Ok(process::output(&mut inspect, "skopeo inspect")?.trim().to_owned())
    }

    /// Its size: the archive holds the layers as they are unpacked.
    ///
    /// # Errors
    /// It is larger than promised.
    fn small(&self) -> Result<u64> {
        let size = fs::metadata(self.archive())?.len();
        if size > MOST_BYTES {
            bail!("the image has {:.1} MB, more than {:.0} MB", megabytes(size), megabytes(MOST_BYTES));
        }
        Ok(size)
    }

    fn tests(&self, workspace: &Workspace, digest: &str) -> Result<Command> {
        // The same once more: nothing of the build may depend on when it runs.
        let again = self.build()?;
        if again != digest {
            bail!("a second build has another digest: {again}");
        }
        debian::need(PROGRAMS_TO_RUN)?;
        let pause = self.folder.join("pause");
        fs::create_dir_all(&pause)?;
        fs::copy("/usr/bin/catatonit", pause.join("catatonit"))?;
        let containerfile = pause.join("Containerfile");
        fs::write(
            &containerfile,
            "FROM scratch\nCOPY catatonit /catatonit\nENTRYPOINT [\"/catatonit\", \"-P\"]\n",
        )?;
        self.bud(PAUSE, &containerfile, &pause)?;
        self.pytest(workspace, "test_image.py")
    }

    /// The tests of one file, which run the image.
    pub(super) fn pytest(&self, workspace: &Workspace, file: &str) -> Result<Command> {
        debian::need(PROGRAMS_TO_RUN)?;
        models::fetch_examples(workspace)?;
        let python = python_environment(workspace)?;
        let mut tests = pytest(workspace, &python, &workspace.root.join("tests/image").join(file));
        tests.env("TRIREME_IMAGE_FOLDER", &self.folder).env("TRIREME_IMAGE", &self.name);
        tests.env("TRIREME_MODEL_REPOSITORY", workspace.model_repository());
        Ok(tests)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The certificates of the authorities in a base, one behind the other.
fn bundle(base: &Path) -> Result<Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(base)?).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let is_one =
            path.extension().is_some_and(|end| end == "crt") && path.to_string_lossy().contains("/mozilla/");
        if is_one {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            found.insert(path, text);
        }
    }
    if found.is_empty() {
        bail!("{} has no certificates", base.display());
    }
    Ok(found.into_values().flatten().collect())
}

/// Where this machine gets its Debian packages from, if it says so in a form that mmdebstrap does not find itself.
fn mirror() -> Option<String> {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").ok()?;
    let uris = sources.lines().find_map(|line| line.strip_prefix("URIs:"))?;
    uris.split_whitespace().next().map(str::to_owned)
}
