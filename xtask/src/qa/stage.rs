//! Runs a suite's script with ours in the place of upstream's programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::build::Built;
use crate::process;
use crate::stopwatch::{Stopwatch, pause};
use crate::workspace::Workspace;

use super::scratch::{self, VERSION};
use super::suites::Suite;
use super::{Args, models};

/// What no suite needs, however slow the machine.
const LONGEST: Duration = Duration::from_secs(90 * 60);

pub(crate) struct Stage<'a> {
    folder: PathBuf,
    shim: PathBuf,
    python: PathBuf,
    built: Option<&'a Built>,
    from: PathBuf,
    clients: Option<PathBuf>,
    only: Option<String>,
    unshare: Vec<&'static str>,
    /// What the server says of itself.
    version: String,
}

impl<'a> Stage<'a> {
    pub(crate) fn prepare(workspace: &Workspace, args: &Args, built: Option<&'a Built>) -> Result<Self> {
        let folder = super::folder(workspace);
        fs::create_dir_all(folder.join("results"))?;
        let python = environment(workspace, &folder)?;
        models::write(&folder.join("data/inferenceserver").join(VERSION))?;
        if let Some(built) = built {
            backends(workspace, built, args.no_build, &folder)?;
        }
        let unshare = isolation();
        if unshare.is_empty() {
            println!(
                "  no network namespaces here: suites run one after the other and need ports 8000 to 8005"
            );
        }
        let version = workspace.packages.iter().find(|package| package.name == "trireme");
        Ok(Self {
            version: version.map(|package| package.version.clone()).unwrap_or_default(),
            shim: workspace.root.join("tests/qa/shim"),
            from: fs::canonicalize(&args.from)?,
            clients: args.clients.as_deref().map(fs::canonicalize).transpose()?,
            only: args.only.clone(),
            folder,
            python,
            built,
            unshare,
        })
    }

    /// Whether suites have networks of their own.
    pub(crate) fn isolated(&self) -> bool {
        !self.unshare.is_empty()
    }

    /// Runs a suite, its parts at the same time; their results are one file.
    pub(crate) fn run(&self, suite: &Suite) -> Result<()> {
        let results = self.folder.join("results").join(suite.name);
        let results = results.with_extension(if self.built.is_some() { "jsonl" } else { "listed.jsonl" });
        fs::write(&results, "")?;
        if self.built.is_none() || !self.isolated() || self.only.is_some() || suite.parts.is_empty() {
            return self.part(suite, suite.name, self.only.as_deref(), &results);
        }
        let watch = |number: usize, only: &'static str| {
            let (name, results) = (format!("{}.{number}", suite.name), &results);
            move || self.part(suite, &name, Some(only), results)
        };
        std::thread::scope(|scope| {
            let parts = suite.parts.iter().enumerate();
            let threads: Vec<_> = parts.map(|(number, only)| scope.spawn(watch(number, only))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a part of the suite panicked")))
            })
        })
    }

    fn part(&self, suite: &Suite, name: &str, only: Option<&str>, results: &Path) -> Result<()> {
        let (root, qa) = scratch::copy(&self.folder, &self.from, self.clients.as_deref(), suite.name, name)?;
        let (tools, log) = (root.join("opt/tritonserver"), self.folder.join("results").join(name));
        fs::create_dir_all(tools.join("bin"))?;
        fs::copy(self.shim.join("tritonserver"), tools.join("bin/tritonserver"))?;
        let output = fs::File::create(format!("{}.log", log.display()))?;
        let watch = Stopwatch::start();
        println!("  {name} starts");
        let mut command = self.command(suite, &root, results, only)?;
        command.current_dir(qa.join(suite.name)).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn().map_err(|error| process::not_started(&command, &error))?;
        while child.try_wait()?.is_none() {
            if watch.elapsed() > LONGEST {
                child.kill()?;
            }
            pause(200);
        }
        println!("  {name} took {:.0} s", watch.seconds());
        Ok(())
    }

    fn command(&self, suite: &Suite, root: &Path, results: &Path, only: Option<&str>) -> Result<Command> {
        let script = "ip link set lo up 2>/dev/null; mount -t tmpfs tmpfs /dev/shm 2>/dev/null; exec bash ./test.sh \"$0\"";
        let mut command = match self.unshare.split_first() {
            Some((program, flags)) => {
                let mut command = Command::new(program);
                command.args(flags).args(["bash", "-c", script, VERSION]);
                command
            }
            None => {
                let mut command = Command::new("bash");
                command.args(["./test.sh", VERSION]);
                command
            }
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.shim.clone()).chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(paths)?)
            .env("BASH_ENV", self.shim.join("prelude.sh"))
            .env("QA_SHIM", &self.shim)
            .env("QA_PYTHON", &self.python)
            .env("QA_STATE", root)
            .env("QA_RESULTS", results)
            .env("QA_BASE", root.join("base.json"))
            .env("TRITON_SERVER_VERSION", &self.version)
            .env("PYTHONPATH", root.join("work/qa/common"));
        for (name, value) in suite.environment {
            command.env(name, value);
        }
        if let Some(only) = only {
            command.env("QA_ONLY", only);
        }
        match self.built {
            Some(built) => command.env("QA_SERVER", &built.server),
            None => command.env("QA_LIST", "1"),
        };
        let backends = self.folder.join(if suite.python { "backends-python" } else { "backends" });
        command.env("QA_BACKENDS", &backends);
        std::os::unix::fs::symlink(&backends, root.join("opt/tritonserver/backends"))?;
        // The combination of a case is what its script adds to this.
        let version = ("TRITON_SERVER_VERSION".to_owned(), self.version.clone());
        let base: serde_json::Map<String, serde_json::Value> = std::env::vars()
            .chain([version])
            .map(|(name, value)| (name, value.into()))
            .filter(|(name, _)| suite.environment.iter().all(|(own, _)| own != name))
            .collect();
        fs::write(root.join("base.json"), serde_json::to_string(&base)?)?;
        Ok(command)
    }
}

/// The backends that the suites name: two of ours, and the stand-in under the other names; beside them the same with our
/// own for Python.
fn backends(workspace: &Workspace, built: &Built, no_build: bool, folder: &Path) -> Result<()> {
    if !no_build {
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["build", "--release", "--package", "trireme-backend-stand-in", "--examples"]);
        process::run(&mut cargo, "cargo build")?;
    }
    let mut libraries: Vec<(String, PathBuf)> = ["identity", "repeat"]
        .map(|name| (name.to_owned(), built.backends.join(name).join(format!("libtrireme_{name}.so"))))
        .to_vec();
    for example in fs::read_dir(workspace.root.join("backends/stand_in/examples"))? {
        let path = example?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let library = workspace.target.join("release/examples").join(format!("lib{name}.so"));
        libraries.push((name, library));
    }
    let python = built.backends.join("python/libtrireme_python.so");
    for (name, library) in libraries {
        let file = Path::new(&name).join(format!("libtrireme_{name}.so"));
        crate::build::link_or_copy(&library, &folder.join("backends").join(&file))?;
        let library = if name == "python" { &python } else { &library };
        crate::build::link_or_copy(library, &folder.join("backends-python").join(&file))?;
    }
    Ok(())
}

/// `unshare` with what this machine lets us have: a network, processes and mounts of the suite's own.
fn isolation() -> Vec<&'static str> {
    let whole = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let as_user =
        ["unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = |command: &[&str]| {
        let mut probe = Command::new(command[0]);
        probe.args(&command[1..]).args(["ip", "link", "set", "lo", "up"]);
        probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if works(&whole) {
        whole.to_vec()
    } else if works(&as_user) {
        as_user.to_vec()
    } else {
        Vec::new()
    }
}

/// The interpreter with the clients of `tests/qa/requirements.txt`.
fn environment(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let pins = workspace.root.join("tests/qa/requirements.txt");
    crate::test::python_installed(workspace, &pins, &folder.join("venv")).context("the clients' environment")
}
