//! Starting the three servers on free loopback ports, each with the same two models.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::cell;
use crate::build::{self, Profile};
use crate::process;
use crate::stopwatch::{Stopwatch, pause};
use crate::workspace::Workspace;

/// A running server; it is ended when this is dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// host:port
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) speaks_kserve: bool,
    child: Child,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Successful inferences of `model` so far, in the server's own words; `None` for the echo.
    pub(crate) fn successes(&self, model: &str) -> Result<Option<u64>> {
        if !self.speaks_kserve {
            return Ok(None);
        }
        let body = get(&self.http, &format!("/v2/models/{model}/stats"))?;
        let stats: serde_json::Value = serde_json::from_str(&body).context("the statistics are not JSON")?;
        let count = &stats["model_stats"][0]["inference_stats"]["success"]["count"];
        // Triton prints numbers, a strict protobuf-to-JSON mapping strings.
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
        Ok(Some(count.context("the statistics lack inference_stats.success.count")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // Already gone is as good as ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        let watch = Stopwatch::start();
        while matches!(self.child.try_wait(), Ok(None)) {
            if watch.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            pause(20);
        }
    }
}

pub(crate) fn trireme(workspace: &Workspace, folder: &Path) -> Result<Server> {
    trireme_with(workspace, folder, &repository(&folder.join("trireme"), "identity")?, |_| ())
}

/// Ours with the models in `repository`; `more` adds flags.
pub(crate) fn trireme_with(
    workspace: &Workspace,
    folder: &Path,
    repository: &Path,
    more: impl FnOnce(&mut Command),
) -> Result<Server> {
    let built = build::server_and_backends(workspace, Profile::Release)?;
    let mut command = Command::new(&built.server);
    more(command.arg("serve"));
    start("trireme", command, repository, &built.backends, folder)
}

pub(crate) fn tritonserver(workspace: &Workspace, folder: &Path) -> Result<Server> {
    let home = install_tritonserver(workspace)?;
    tritonserver_with(&home, folder, &repository(&folder.join("tritonserver"), "bench")?, |_| ())
}

/// The folder of a real tritonserver.
pub(crate) fn install_tritonserver(workspace: &Workspace) -> Result<PathBuf> {
    let install = workspace.target.join("peers/tritonserver");
    println!("installing a real tritonserver into {} (about 60 MB, once)", workspace.shown(&install));
    let mut script = Command::new(workspace.root.join("tests/peers/tritonserver/install.sh"));
    process::run(script.arg(&install), "the install of tritonserver")?;
    Ok(install.join("tritonserver"))
}

/// The one in `home` with the models in `repository`; `more` adds flags.
pub(crate) fn tritonserver_with(
    home: &Path,
    folder: &Path,
    repository: &Path,
    more: impl FnOnce(&mut Command),
) -> Result<Server> {
    let mut command = Command::new(home.join("bin/tritonserver"));
    more(command.args(["--pinned-memory-pool-byte-size=0", "--allow-gpu-metrics=false"]));
    start("tritonserver", command, repository, &home.join("backends"), folder)
}

pub(crate) fn echo(workspace: &Workspace) -> Result<Server> {
    let mut build = process::cargo(&workspace.root);
    process::run(
        build.args(["build", "--release", "--package", "xtask", "--example", "echo"]),
        "the build of the echo",
    )?;
    let [http, grpc] = free_ports()?;
    let mut command = Command::new(workspace.target.join("release/examples/echo"));
    command.args([http.to_string(), grpc.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| process::not_started(&command, &error))?;
    let mut server =
        Server { name: "echo", http: local(http), grpc: local(grpc), speaks_kserve: false, child };
    wait_until(&mut server, |server| {
        TcpStream::connect(&server.http).is_ok() && TcpStream::connect(&server.grpc).is_ok()
    })?;
    Ok(server)
}

/// Starts a server that takes tritonserver's flags; its log goes beside the results.
fn start(
    name: &'static str,
    mut command: Command,
    repository: &Path,
    backends: &Path,
    folder: &Path,
) -> Result<Server> {
    let [http, grpc, metrics] = free_ports()?;
    let log = folder.join(format!("{name}.log"));
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    for (service, port) in [("http", http), ("grpc", grpc), ("metrics", metrics)] {
        command.arg(format!("--{service}-port={port}")).arg(format!("--{service}-address=127.0.0.1"));
    }
    command.arg(format!("--model-repository={}", repository.display()));
    command.arg(format!("--backend-directory={}", backends.display()));
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().map_err(|error| process::not_started(&command, &error))?;
    let mut server = Server { name, http: local(http), grpc: local(grpc), speaks_kserve: true, child };
    wait_until(&mut server, |server| {
        get(&server.http, "/v2/health/ready").is_ok() && TcpStream::connect(&server.grpc).is_ok()
    })
    .with_context(|| format!("its log is {}", log.display()))?;
    Ok(server)
}

fn wait_until(server: &mut Server, ready: impl Fn(&Server) -> bool) -> Result<()> {
    let watch = Stopwatch::start();
    while !ready(server) {
        if let Some(status) = server.child.try_wait()? {
            bail!("{} ended at its start ({status})", server.name);
        }
        if watch.elapsed() > Duration::from_secs(30) {
            bail!("{} was not ready after 30 s", server.name);
        }
        pause(50);
    }
    Ok(())
}

/// Writes the two identity models for a server whose identity backend has this name.
fn repository(folder: &Path, backend: &str) -> Result<PathBuf> {
    for (model, batcher) in [(cell::BATCHED, "dynamic_batching { }\n"), (cell::UNBATCHED, "")] {
        let version = folder.join(model).join("1");
        fs::create_dir_all(&version).with_context(|| format!("cannot make {}", version.display()))?;
        let config = format!(
            "name: \"{model}\"\nbackend: \"{backend}\"\nmax_batch_size: 64\n\
             input [ {{ name: \"INPUT0\" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n\
             output [ {{ name: \"OUTPUT0\" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n\
             instance_group [ {{ count: 1 kind: KIND_CPU }} ]\n{batcher}"
        );
        let path = folder.join(model).join("config.pbtxt");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(folder.to_path_buf())
}

/// The body of a GET. HTTP/1.0, so that it ends with the connection.
fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // In one write: tritonserver 2.51 answers 404 when the path arrives in two pieces.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let status = head.split_whitespace().nth(1).unwrap_or("none");
    if status != "200" {
        bail!("GET {path}: status {status}");
    }
    Ok(body.to_string())
}

/// Ports that were free a moment ago, all held at once so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
