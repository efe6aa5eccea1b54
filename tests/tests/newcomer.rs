//! What an author does first, as docs/writing-a-backend.md says it: in an empty folder, with nothing but the packaged
//! crates and the program, a new backend is made, built, tested, held against the ABI, served and asked. The commands are
//! read from the page. With `TRIREME_TEST_FULL=1` nothing is built before, and all of it has to be done in ten minutes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
#[expect(clippy::disallowed_types, reason = "how long a person waits")]
use std::time::Instant;

use serde_json::{Value, json};
use trireme_tests::{http, places, process, server::Server};

/// A build from nothing on a slow machine.
const STEP: Duration = Duration::from_secs(300);
const ALL: Duration = Duration::from_secs(600);

/// The crates that an author needs.
const CRATES: [&str; 5] =
    ["trireme-abi", "trireme-sdk", "trireme-host", "trireme-testing", "trireme-conformance"];

/// A command that knows nothing of this workspace.
fn fresh(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    for variable in
        ["CARGO_MANIFEST_DIR", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_RESOLVER_FEATURE_UNIFICATION"]
    {
        command.env_remove(variable);
    }
    // The versions that this workspace was built with are on this machine: nothing is fetched.
    command.env("CARGO_NET_OFFLINE", "true");
    command
}

/// Packages the crates of the SDK and unpacks them in `crates`, as a registry would.
fn package(scratch: &Path, crates: &Path) {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = fresh(&cargo, &places::workspace());
    // What is packaged is built below; the lock file would need the crates in a registry.
    command.args(["package", "--quiet", "--offline", "--allow-dirty", "--no-verify", "--exclude-lockfile"]);
    command.args(CRATES.iter().flat_map(|name| ["--package", name]));
    process::run(command.arg("--target-dir").arg(scratch.join("packages")), STEP).unwrap();
    fs::create_dir_all(crates).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(scratch.join("packages/package")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "crate") {
            process::run(fresh("tar", crates).arg("-xzf").arg(&path), STEP).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, CRATES.len());
}

/// The lines of the first two blocks of commands.
fn commands() -> (Vec<String>, String) {
    let page = fs::read_to_string(places::workspace().join("docs/writing-a-backend.md")).unwrap();
    let mut blocks = page.split("```console\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let steps = blocks.next().unwrap().lines().map(str::to_owned).collect();
    (steps, blocks.next().unwrap().to_owned())
}

#[test]
fn from_packaged_crates_to_an_answer() {
    places::server().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let crates = scratch.path().join("crates");
    package(scratch.path(), &crates);
    let full = env::var_os("TRIREME_TEST_FULL").is_some();

    #[expect(clippy::disallowed_types, reason = "how long a person waits")]
    let start = Instant::now();
    let (steps, question) = commands();
    let path = format!("{}:{}", places::target().display(), env::var("PATH").unwrap_or_default());
    let mut folder = scratch.path().to_owned();
    for step in &steps {
        if let Some(into) = step.strip_prefix("cd ") {
            folder = folder.join(into);
            fs::copy(places::workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
            if !full {
                // Kept from run to run, so that only the first one builds the crates of others.
                let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("newcomer");
                fs::create_dir_all(&target).unwrap();
                symlink(target, folder.join("target")).unwrap();
            }
        } else if !step.starts_with("trireme serve ") {
            process::run(fresh("sh", &folder).args(["-ec", step]).env("PATH", &path), STEP)
                .unwrap_or_else(|error| panic!("{step}: {error:#}"));
        }
    }
    // The last step does not end, and its port may be taken: the same folders, on a port of the test.
    assert_eq!(
        steps.last().map(String::as_str),
        Some("trireme serve --model-repository models --backend-directory backends")
    );
    let server = Server::start(&folder.join("models"), &folder.join("backends"), scratch.path()).unwrap();
    let body = question.split('\'').nth(1).unwrap();
    assert!(question.contains("localhost:8000/v2/models/my_scale/infer"), "{question}");
    let body: Value = serde_json::from_str(body).unwrap();
    let (status, answer) = http::post(server.http, "/v2/models/my_scale/infer", &body).unwrap();
    assert_eq!(status, 200, "{answer}");
    let output = json!({ "name": "OUTPUT0", "datatype": "FP32", "shape": [1, 3], "data": [3.0, 6.0, 9.0] });
    assert_eq!(answer["outputs"], json!([output]));
    assert!(server.stop().unwrap().success());
    assert!(!full || start.elapsed() < ALL, "{:?}", start.elapsed());
}
