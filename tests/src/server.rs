//! A server as a child process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{places, process};

const START: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(20);

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    /// Its HTTP address.
    pub http: SocketAddr,
}

impl Server {
    /// Starts a server on free ports and waits until it says where it listens, which is when its models are loaded. Its
    /// log goes to a file in `scratch`.
    ///
    /// # Errors
    /// It ends or takes too long; with its log.
    pub fn start(repository: &Path, backends: &Path, scratch: &Path) -> Result<Self> {
        Self::start_in(&[], repository, backends, scratch)
    }

    /// The same with variables in its environment.
    ///
    /// # Errors
    /// As of [`Server::start`].
    pub fn start_in(
        environment: &[(&str, &str)],
        repository: &Path,
        backends: &Path,
        scratch: &Path,
    ) -> Result<Self> {
        let log = scratch.join("server.log");
        let mut command = Command::new(places::server()?);
        command.envs(environment.iter().copied());
        command.args(["serve", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]);
        command.args(["--http-port=0", "--grpc-port=0", "--metrics-port=0"]);
        command.arg("--model-repository").arg(repository).arg("--backend-directory").arg(backends);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let (lines, said) = mpsc::channel();
        // Reads on to the end, so that the server never waits for its reader.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        let mut server = Self { child, http: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let (end, mut output) = (Instant::now() + START, String::new());
        loop {
            match said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("HTTP ").map(str::trim) {
                        server.http = address.trim_start_matches("http://").parse()?;
                        return Ok(server);
                    }
                    output += &(line + "\n");
                }
                Err(error) => {
                    let how = if error == RecvTimeoutError::Timeout { "took too long" } else { "ended" };
                    bail!("the server {how}: {output}{}", fs::read_to_string(log)?);
                }
            }
        }
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        process::terminate(&self.child)?;
        process::wait(&mut self.child, DRAIN).context("the server after SIGTERM")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
