//! What an author does first: in an empty folder outside the workspace, a new backend is made, built, tested, served
//! and asked. The commands are those of the template's README.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use trireme_tests::{http, places, process, server::Server};

/// A build from nothing on a slow machine.
const BUILD: Duration = Duration::from_secs(300);

fn cargo(folder: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target);
    // What the test's own cargo says about this workspace is not said to a crate outside of it.
    cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTFLAGS");
    cargo
}

#[test]
fn a_new_backend_is_built_tested_served_and_answers() {
    let server = places::server().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (folder, workspace) = (scratch.path().join("mine"), places::workspace());
    // Kept from run to run, so that only the first one builds the SDK.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-backend");

    let xtask = places::target().join("xtask");
    let mut new_backend = if xtask.is_file() {
        let mut command = Command::new(xtask);
        command.current_dir(&workspace).env_remove("CARGO_MANIFEST_DIR");
        command
    } else {
        let mut command = cargo(&workspace, &target);
        command.args(["run", "--release", "--quiet", "-p", "xtask", "--"]);
        command
    };
    process::run(new_backend.args(["new-backend", "my-scale", "--path"]).arg(&folder), BUILD).unwrap();
    // The versions that this workspace was built with are on this machine: nothing is fetched.
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    process::run(cargo(&folder, &target).args(["build", "--release", "--offline", "--quiet"]), BUILD)
        .unwrap();
    process::run(cargo(&folder, &target).args(["test", "--release", "--offline", "--quiet"]), BUILD).unwrap();

    let backends = folder.join("backends");
    fs::create_dir_all(backends.join("my_scale")).unwrap();
    let library = "libtrireme_my_scale.so";
    fs::copy(target.join("release").join(library), backends.join("my_scale").join(library)).unwrap();

    assert!(server.is_file());
    let server = Server::start(&folder.join("models"), &backends, scratch.path()).unwrap();
    let input = json!({ "name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3] });
    let question = json!({ "inputs": [input] });
    let (status, answer) = http::post(server.http, "/v2/models/my_scale/infer", &question).unwrap();
    assert_eq!(status, 200, "{answer}");
    let output = json!({ "name": "OUTPUT0", "datatype": "FP32", "shape": [1, 3], "data": [3.0, 6.0, 9.0] });
    assert_eq!(answer["outputs"], json!([output]));
    assert!(server.stop().unwrap().success());
}
