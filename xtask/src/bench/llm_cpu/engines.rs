//! The engines as programs: where they come from, and one run of each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::report::Figures;
use crate::process;
use crate::workspace::Workspace;

/// What a decoder is asked to do.
#[derive(Clone, Copy)]
pub(super) struct Decoding {
    context: usize,
    prompt: usize,
    decode: usize,
    streams: usize,
}

impl Decoding {
    /// 512 tokens behind `context` others, then 128 greedy ones; on `streams` at a time.
    pub(super) fn of(context: usize, streams: usize) -> Self {
        Self { context, prompt: 512, decode: 128, streams }
    }
}

/// Passes of a run, whose median counts.
const PASSES: &str = "3";

pub(super) struct Engines {
    bench_llm: PathBuf,
    bench_embed: PathBuf,
    python: PathBuf,
    scripts: PathBuf,
    scratch: PathBuf,
    decoder: PathBuf,
    encoder: PathBuf,
    pub(super) threads: usize,
}

impl Engines {
    pub(super) fn install(workspace: &Workspace, decoder: PathBuf, threads: usize) -> Result<Self> {
        let mut build = process::cargo(&workspace.root);
        build.args(["build", "--release", "--package", "trireme-backend-cpu"]);
        process::run(build.args(["--example", "bench_llm", "--example", "bench_embed"]), "the build")?;
        let scripts = workspace.root.join("backends/cpu/bench");
        let python = install_peers(workspace, &scripts)?;
        let scratch = workspace.target.join("bench/llm-cpu");
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        Ok(Self {
            bench_llm: workspace.target.join("release/examples/bench_llm"),
            bench_embed: workspace.target.join("release/examples/bench_embed"),
            python,
            scripts,
            scratch,
            decoder,
            encoder: workspace.model_repository().join("minilm/1"),
            threads,
        })
    }

    pub(super) fn trireme(&self, case: Decoding) -> Result<Figures> {
        let mut command = Command::new(&self.bench_llm);
        command.arg(&self.decoder).args(["--repeat", PASSES]);
        for (flag, value) in [
            ("--threads", self.threads),
            ("--context", case.context),
            ("--prompt", case.prompt),
            ("--decode", case.decode),
            ("--streams", case.streams),
        ] {
            command.arg(flag).arg(value.to_string());
        }
        Figures::of(&mut command, "bench_llm")
    }

    /// With `[threads for prompts, threads for decoding]`.
    pub(super) fn llama_cpp(&self, case: Decoding, threads: [usize; 2]) -> Result<Figures> {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join("decoder_llama_cpp.py")).arg(&self.decoder);
        for value in [threads[1], case.context, case.prompt, case.decode, case.streams] {
            command.arg(value.to_string());
        }
        Figures::of(command.arg(PASSES).arg(threads[0].to_string()), "decoder_llama_cpp.py")
    }

    pub(super) fn trireme_embed(&self) -> Result<Figures> {
        let mut command = Command::new(&self.bench_embed);
        command.arg(&self.encoder).arg(self.scratch.join("ids.json")).arg(self.scratch.join("vectors.f32"));
        command.args(["--threads", &self.threads.to_string()]);
        Figures::of(&mut command, "bench_embed")
    }

    /// After [`Self::trireme_embed`].
    pub(super) fn onnxruntime(&self) -> Result<Figures> {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join("encoder_onnxruntime.py")).arg(&self.encoder);
        command.arg(self.scratch.join("ids.json")).arg(self.scratch.join("vectors.f32"));
        Figures::of(command.args([&self.threads.to_string(), "5"]), "encoder_onnxruntime.py")
    }
}

/// A Python environment with the peers, llama.cpp compiled in it for this CPU.
fn install_peers(workspace: &Workspace, scripts: &Path) -> Result<PathBuf> {
    let folder = workspace.target.join("peers/cpu-engines");
    let python = folder.join("bin/python");
    let mut works = Command::new(&python);
    works.args(["-c", "import llama_cpp, onnx, onnxruntime"]);
    if python.exists() && process::output(&mut works, "the import of the peers").is_ok() {
        return Ok(python);
    }
    println!("installing llama.cpp (compiled, ten minutes on two cores) and onnxruntime, once");
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-binary", "llama-cpp-python", "--requirement"]).arg(scripts.join("requirements.txt"));
    pip.env("CMAKE_ARGS", "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF");
    process::run(&mut pip, "pip install of the peers")?;
    Ok(python)
}
