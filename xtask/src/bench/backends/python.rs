//! `identity` written in Python, ours beside tritonserver's: requests for each second of CPU of the server and the
//! processes of its models.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::frontend::cell::{BATCHED, Cell, Payload, Protocol};
use super::super::frontend::loader::Loader;
use super::super::frontend::servers;
use super::Row;
use crate::process;
use crate::test::{python_environment, python_installed};
use crate::workspace::Workspace;

const BAR: f64 = 1.3;
/// (requests at a time, requests of a run)
const CELLS: [(u32, u64); 2] = [(1, 8_000), (16, 32_000)];
const MODEL: &str = r#"import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", value)]) for value in inputs]
"#;

pub(super) fn rows(workspace: &Workspace, folder: &Path, runs: u32) -> Result<Vec<Row>> {
    if !process::on_path("wrk") {
        bail!("`wrk` is not installed: install it (Debian: `apt install wrk`)");
    }
    let python = python_environment(workspace)?;
    let (bodies, script) = (folder.join("bodies"), workspace.root.join("tests/peers/bodies.py"));
    process::run(
        Command::new(&python).arg(&script).arg("write").arg(&bodies).arg(BATCHED),
        "bodies.py write",
    )?;
    let repository = repository(&folder.join("python"))?;
    // The same interpreter and numpy for both.
    let pins = workspace.root.join("tests/peers/python-models.txt");
    let interpreter = python_installed(workspace, &pins, &workspace.target.join("peers/python-models"))?;
    let ours = servers::trireme_with(workspace, folder, &repository, |command| {
        command.arg(format!("--backend-config=python,interpreter={}", interpreter.display()));
    })?;
    let home = servers::install_tritonserver(workspace)?;
    install_stub(&home)?;
    // It takes the environment whose interpreter is the first on PATH.
    let folders = interpreter.parent().map(Path::to_path_buf);
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&rest)))?;
    let theirs = servers::tritonserver_with(&home, folder, &repository, |command| {
        command.env("PATH", path);
    })?;
    let servers = [ours, theirs];
    for server in &servers {
        let mut check = Command::new(&python);
        check.arg(&script).args(["check", &server.http, &server.grpc, BATCHED]);
        process::run(&mut check, &format!("the check of {}'s answers", server.name))?;
    }
    let loader = Loader { workspace, bodies: &bodies, scratch: folder };
    let mut rows = Vec::new();
    for (concurrency, count) in CELLS {
        let cell = Cell { protocol: Protocol::Http, payload: Payload::Small, concurrency, model: BATCHED };
        for server in &servers {
            loader.run(server, cell, count / 10)?;
        }
        let mut seen = [Vec::new(), Vec::new()];
        for turn in 0..runs as usize {
            for step in 0..servers.len() {
                let which = (turn + step) % servers.len();
                let run = loader.run(&servers[which], cell, count)?;
                println!(
                    "python, {concurrency} at a time, {}: {:.0} requests/s, {:.0} us of CPU each, p50 {:.0} us",
                    servers[which].name, run.requests_per_second, run.cpu_us_per_request, run.p50_us
                );
                seen[which].push(1e6 / run.cpu_us_per_request);
            }
        }
        let [ours, peer] = seen;
        let what = format!("Python identity, {concurrency} at a time, requests a CPU second; tritonserver");
        rows.push(Row { what, ours, peer, bar: Some(BAR) });
    }
    Ok(rows)
}

fn repository(folder: &Path) -> Result<PathBuf> {
    let model = folder.join(BATCHED);
    fs::create_dir_all(model.join("1")).with_context(|| format!("cannot make {}", model.display()))?;
    fs::write(model.join("1/model.py"), MODEL)?;
    let config = format!(
        "name: \"{BATCHED}\"\nbackend: \"python\"\nmax_batch_size: 64\n\
         input [ {{ name: \"INPUT0\" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n\
         output [ {{ name: \"OUTPUT0\" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n\
         instance_group [ {{ count: 1 kind: KIND_CPU }} ]\ndynamic_batching {{ }}\n"
    );
    fs::write(model.join("config.pbtxt"), config)?;
    Ok(folder.to_path_buf())
}

/// tritonserver's program for the Python of this machine goes beside its backend.
fn install_stub(home: &Path) -> Result<()> {
    let version = "import sys; print('{}.{}'.format(*sys.version_info))";
    let version = process::output(Command::new("python3").args(["-c", version]), "python3")?;
    let stub = home.join("python_backend_stubs").join(version.trim()).join("triton_python_backend_stub");
    let to = home.join("backends/python/triton_python_backend_stub");
    fs::copy(&stub, &to).with_context(|| format!("tritonserver has no {}", stub.display()))?;
    process::run(Command::new("chmod").arg("+x").arg(&to), "chmod")
}
