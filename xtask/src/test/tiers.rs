//! What each tier runs.

use std::process::Command;

use super::counts::Runner;
use super::runner::{self, Budget};
use super::{Findings, Tier, deny, onnx_cases, python};
use crate::build::{self, Profile};
use crate::deploy;
use crate::kernels;
use crate::models;
use crate::process;
use crate::sim;
use crate::stopwatch::Stopwatch;
use crate::tidy;
use crate::workspace::Workspace;

/// The crate that starts a real server; it has a tier of its own.
const END_TO_END: &str = "trireme-tests";

pub(crate) fn run(workspace: &Workspace, tier: Tier, full: bool, watch: Stopwatch, cap: u64) -> Findings {
    let mut context =
        Context { workspace, full, budget: Budget { watch, cap }, findings: Findings::default() };
    match tier {
        Tier::Build => context.build(),
        Tier::Unit => context.unit(),
        Tier::E2e => context.end_to_end(),
        Tier::Deploy => context.deploy(),
        Tier::Rest => context.rest(),
    }
    context.findings
}

struct Context<'a> {
    workspace: &'a Workspace,
    full: bool,
    budget: Budget,
    findings: Findings,
}

impl Context<'_> {
    fn build(&mut self) {
        let mut all = self.cargo(&["build", "--release", "--workspace"]);
        if !self.step(&mut all, "build the server, the backends and the tools") {
            return;
        }
        let installed = build::install(self.workspace, Profile::Release).map(drop);
        self.check(installed, "install the backends");
        let mut tests = if has_nextest() {
            self.cargo(&["nextest", "run", "--cargo-profile", "release", "--workspace", "--no-run"])
        } else {
            self.cargo(&["test", "--release", "--workspace", "--no-run"])
        };
        self.step(&mut tests, "build the tests");
    }

    fn unit(&mut self) {
        self.check(models::fetch_examples(self.workspace), "fetch the weights");
        self.check(models::fetch_test_texts(self.workspace), "fetch the texts");
        let mut tests = self.test_command(&["--workspace", "--exclude", END_TO_END]);
        self.tests(rust_runner(), &mut tests, "unit and property tests");
        self.check(sim::test(self.workspace, self.full), "simulation of the scheduler");
        self.check(kernels::compile(self.workspace).map(drop), "the CUDA kernels compile and spill nothing");
    }

    fn end_to_end(&mut self) {
        let mut all = self.cargo(&["build", "--release", "--workspace"]);
        if !self.step(&mut all, "build what changed") {
            return;
        }
        let installed = build::install(self.workspace, Profile::Release).map(drop);
        self.check(installed, "install the backends");
        self.check(models::fetch_examples(self.workspace), "fetch the weights");
        self.check(models::fetch_onnx_examples(self.workspace), "fetch the weights of the ONNX examples");
        let python = match python::environment(self.workspace) {
            Ok(python) => python,
            Err(error) => return self.check(Err(error), "set up the Python clients"),
        };
        let mut tests = self.test_command(&["--package", END_TO_END]);
        tests.env("TRIREME_PYTHON", &python);
        self.tests(rust_runner(), &mut tests, "a real server from Rust");
        let folder = self.workspace.root.join("tests/python");
        if folder.is_dir() {
            let mut pytest = Command::new(&python);
            pytest.args(["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"]).arg(folder);
            pytest.current_dir(&self.workspace.root).env("PYTHONDONTWRITEBYTECODE", "1");
            self.give_places(&mut pytest);
            pytest.env("TRIREME_PYTHON", &python);
            if self.full {
                match onnx_cases::ready(self.workspace) {
                    Ok(folder) => drop(pytest.env("TRIREME_ONNX_CASES", folder)),
                    Err(error) => self.check(Err(error), "fetch ONNX's operator cases"),
                }
            }
            self.tests(Runner::Pytest, &mut pytest, "a real server from the real tritonclient");
        }
    }

    fn deploy(&mut self) {
        let mut all = self.cargo(&["build", "--release", "--workspace"]);
        if !self.step(&mut all, "build what changed") {
            return;
        }
        let installed = build::install(self.workspace, Profile::Release).map(drop);
        self.check(installed, "install the backends");
        for (what, prepare) in deploy::TESTS {
            match prepare(self.workspace) {
                Ok(mut tests) => {
                    self.give_places(&mut tests);
                    self.tests(Runner::Pytest, &mut tests, what);
                }
                // Never passed over: what is not here is what is wrong.
                Err(error) => self.check(Err(error), what),
            }
        }
    }

    fn rest(&mut self) {
        self.step(&mut self.cargo(&["fmt", "--all", "--check"]), "format");
        self.check(tidy::run(self.workspace), "house rules");
        let mut clippy = self.cargo(&["clippy", "--release", "--workspace", "--all-targets", "--quiet"]);
        self.step(clippy.args(["--", "--deny", "warnings"]), "clippy");
        let mut docs = self.cargo(&["test", "--release", "--workspace", "--doc", "--quiet"]);
        self.tests(Runner::CargoTest, &mut docs, "examples in the documentation");
        match deny::ready(self.workspace) {
            Ok(mut command) => {
                self.step(command.args(["check", "bans", "licenses", "sources"]), "bans, licences, sources");
            }
            Err(error) => self.check(Err(error), "install cargo-deny"),
        }
    }

    /// The Rust test runner for a selection of packages: nextest where it is installed.
    fn test_command(&self, selection: &[&str]) -> Command {
        let mut command = if has_nextest() {
            let mut nextest =
                self.cargo(&["nextest", "run", "--cargo-profile", "release", "--color", "never"]);
            nextest.args(["--no-fail-fast", "--no-tests", "pass", "--status-level", "slow", "--config-file"]);
            nextest.arg(self.workspace.root.join("xtask/nextest.toml"));
            nextest.args(["--profile", if self.full { "full" } else { "default" }]);
            nextest
        } else {
            let mut test =
                self.cargo(&["test", "--release", "--no-fail-fast", "--quiet", "--lib", "--bins", "--tests"]);
            test.env("CARGO_TERM_COLOR", "never");
            test
        };
        command.args(selection);
        self.give_places(&mut command);
        command
    }

    /// Tests learn from the environment where things are; each has a default for a run by hand.
    fn give_places(&self, command: &mut Command) {
        let release = self.workspace.target.join("release");
        command
            .env("TRIREME_TARGET", release)
            .env("TRIREME_MODEL_REPOSITORY", self.workspace.model_repository());
        command.env("TRIREME_TEST_DATA", self.workspace.test_data());
        if self.full {
            command.env("TRIREME_TEST_FULL", "1").env("PROPTEST_CASES", "4096");
        }
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = process::cargo(&self.workspace.root);
        cargo.args(args);
        cargo
    }

    fn step(&mut self, command: &mut Command, what: &str) -> bool {
        runner::step(&mut self.findings, self.budget, command, what)
    }

    fn tests(&mut self, runner: Runner, command: &mut Command, what: &str) -> bool {
        runner::tests(&mut self.findings, self.budget, runner, command, what)
    }

    fn check(&mut self, outcome: anyhow::Result<()>, what: &str) {
        if let Err(error) = outcome {
            eprintln!("  {what}: {error:#}");
            self.findings.broken.push(format!("{what}: {error:#}"));
        }
    }
}

fn rust_runner() -> Runner {
    if has_nextest() { Runner::Nextest } else { Runner::CargoTest }
}

fn has_nextest() -> bool {
    process::on_path("cargo-nextest")
}
