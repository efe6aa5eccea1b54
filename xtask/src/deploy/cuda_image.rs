//! The CUDA image. Its base is NVIDIA's, which is named by its digest and pulled by whoever builds the image; where no
//! registry can be reached a stand-in takes its place, on which all can be tried that needs no GPU.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::image::Image;
use crate::build::Profile;
use crate::dist;
use crate::models;
use crate::process;
use crate::workspace::Workspace;

/// In the place of NVIDIA's base.
const STAND_IN: &str = "localhost/cuda-stand-in";
/// Where NVIDIA's images have the libraries, and how they are found there.
const LIBRARIES: &str = "/usr/local/cuda/lib64";

/// What a Docker engine that can reach the base builds the image from.
pub(super) fn render(workspace: &Workspace, base: &str, profile: Profile) -> Result<()> {
    let image = Image::at(workspace, "cuda")?;
    let context = on_base(workspace, &image, base, profile)?;
    println!("context   {} (docker build it where {base} can be pulled)", workspace.shown(&context));
    Ok(())
}

/// Builds the image on a base of Debian and of NVIDIA's own libraries, and runs its tests.
pub(super) fn try_on_a_stand_in(workspace: &Workspace, profile: Profile) -> Result<()> {
    let image = Image::at(workspace, "cuda")?;
    let base = stand_in(workspace, &image)?;
    let context = on_base(workspace, &image, &base, profile)?;
    image.bud(&image.name, &context.join("Dockerfile"), &context)?;
    println!("image     {} on {base}", image.name);
    process::run(&mut image.pytest(workspace, "test_cuda_image.py")?, "the tests of the CUDA image")
}

/// The context of the image with the rendered Dockerfile in it.
fn on_base(workspace: &Workspace, image: &Image, base: &str, profile: Profile) -> Result<PathBuf> {
    image.context(workspace, &dist::with_kernels(workspace, profile)?)?;
    let text = fs::read_to_string(&image.containerfile)?;
    let rendered = text.replace("ARG BASE\n", &format!("ARG BASE={base}\n"));
    if rendered == text {
        bail!("{} has no line 'ARG BASE'", workspace.shown(&image.containerfile));
    }
    let context = image.folder.join("context");
    // The base is another one.
    fs::remove_file(context.join("base.tar"))?;
    fs::write(context.join("Dockerfile"), rendered)?;
    Ok(context)
}

/// The stand-in, by its digest.
fn stand_in(workspace: &Workspace, image: &Image) -> Result<String> {
    let folder = image.folder.join("stand-in");
    let libraries = models::fetch_cuda_libraries(&folder.join("lib"))?;
    let base = folder.join("base.tar");
    fs::copy(image.larger_base()?, &base).with_context(|| format!("cannot write {}", base.display()))?;
    let containerfile = folder.join("Containerfile");
    fs::write(
        &containerfile,
        format!("FROM scratch\nADD base.tar /\nCOPY lib {LIBRARIES}\nENV LD_LIBRARY_PATH={LIBRARIES}\n"),
    )?;
    println!("  building the stand-in for NVIDIA's base from {}", workspace.shown(&libraries));
    image.bud(STAND_IN, &containerfile, &folder)?;
    let mut images = image.tool("buildah");
    images.args(["images", "--format", "{{.Digest}}", STAND_IN]);
    let digest = process::output(&mut images, "buildah images")?;
    let digest = digest.lines().next().context("buildah does not show the stand-in")?;
    Ok(format!("{STAND_IN}@{digest}"))
}
