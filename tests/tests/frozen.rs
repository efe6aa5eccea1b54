//! Version 1 of the ABI is kept: what was built against the frozen copy in `tests/abi-compat/v1` runs in this server, and
//! what is built today runs in the host of the copy. Each side is held to its own conformance kit.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use trireme_tests::{http, places, process, server::Server};

const BUILD: Duration = Duration::from_secs(300);

/// A model that the kits try: its configuration for the server and as a server would hand it on, what is in
/// `conformance.json`, and which checks say nothing about it.
struct Subject {
    backend: &'static str,
    config: &'static str,
    json: fn() -> Value,
    declared: fn() -> Value,
    excluded: &'static [&'static str],
}

const IDENTITY: Subject = Subject {
    backend: "identity",
    config: r#"backend: "identity" max_batch_size: 8
        input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "INPUT1" data_type: TYPE_STRING dims: [ -1 ] } ]
        output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "OUTPUT1" data_type: TYPE_STRING dims: [ -1 ] } ]"#,
    json: || {
        json!({
            "name": "m", "backend": "identity", "max_batch_size": 8,
            "input": [tensor("INPUT0", "TYPE_FP32", -1), tensor("INPUT1", "TYPE_STRING", -1)],
            "output": [tensor("OUTPUT0", "TYPE_FP32", -1), tensor("OUTPUT1", "TYPE_STRING", -1)],
        })
    },
    declared: || json!({}),
    excluded: &["ragged", "error_mapping"],
};

/// The same in C, which knows one input only.
const C: Subject = Subject {
    backend: "c_identity",
    config: r#"backend: "c_identity" max_batch_size: 8
        input [ { name: "A" data_type: TYPE_STRING dims: [ -1 ] } ]
        output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]"#,
    json: || {
        json!({
            "name": "m", "backend": "c_identity", "max_batch_size": 8,
            "input": [tensor("A", "TYPE_STRING", -1)], "output": [tensor("OUTPUT0", "TYPE_STRING", -1)],
        })
    },
    declared: || json!({}),
    excluded: &["ragged", "error_mapping"],
};

/// Decoupled: pauses, cancellation, answers from other threads.
const REPEAT: Subject = Subject {
    backend: "repeat",
    config: r#"backend: "repeat" model_transaction_policy { decoupled: true }
        input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
                { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] } ]
        output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] } ]"#,
    json: || {
        json!({
            "name": "m", "backend": "repeat", "max_batch_size": 0, "model_transaction_policy": { "decoupled": true },
            "input": [tensor("IN", "TYPE_INT32", -1), tensor("DELAY", "TYPE_UINT32", -1), tensor("WAIT", "TYPE_UINT32", 1)],
            "output": [tensor("OUT", "TYPE_INT32", 1), tensor("IDX", "TYPE_UINT32", 1)],
        })
    },
    declared: || {
        let of = |numbers: &[i64]| json!({ "shape": [numbers.len()], "data": numbers });
        let request = |name: &str, numbers: &[i64], delays: &[i64]| json!({ "name": name, "inputs": { "IN": of(numbers), "DELAY": of(delays), "WAIT": of(&[0]) } });
        let (mut three, mut wrong) =
            (request("three", &[4, 2, 0], &[1, 0, 1]), request("wrong", &[1], &[0, 0]));
        three["answers"] = 3.into();
        wrong["error"] = "INVALID_ARG".into();
        json!({ "requests": [three, wrong] })
    },
    excluded: &["bytes", "batching", "ragged"],
};

/// Wants of its host what one of 1.0 has not, nor a kit: an extension of 1.1. It is refused, and all else works.
const CALLER: Subject = Subject {
    backend: "caller",
    config: r#"backend: "caller" max_batch_size: 8
        input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ] output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]"#,
    json: || {
        json!({
            "name": "m", "backend": "caller", "max_batch_size": 8,
            "input": [tensor("INPUT0", "TYPE_FP32", -1)], "output": [tensor("OUTPUT0", "TYPE_FP32", -1)],
        })
    },
    declared: || {
        let request = |what: &str| {
            let one = json!({ "shape": [1, 1], "data": [1.5] });
            json!({ "name": what, "inputs": { "INPUT0": one }, "parameters": { "do": what, "of": "m" } })
        };
        let (mut ready, mut load) = (request("ready"), request("load"));
        (ready["error"], load["error"]) = ("UNSUPPORTED".into(), "UNSUPPORTED".into());
        json!({ "requests": [request("nothing"), ready, load] })
    },
    excluded: &["bytes", "ragged"],
};

fn tensor(name: &str, data_type: &str, dim: i64) -> Value {
    json!({ "name": name, "data_type": data_type, "dims": [dim] })
}

fn copy() -> PathBuf {
    places::workspace().join("tests/abi-compat/v1")
}

/// Builds the copy as it is, with the dependencies of its own lock file; where that puts what it makes.
fn built() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi-compat/target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(copy())
        .args(["build", "--release", "--workspace", "--locked", "--quiet", "--target-dir"])
        .arg(&target);
    for variable in ["CARGO_MANIFEST_DIR", "RUSTFLAGS", "CARGO_RESOLVER_FEATURE_UNIFICATION"] {
        cargo.env_remove(variable);
    }
    process::run(&mut cargo, BUILD).unwrap();
    target.join("release")
}

/// Compiles a backend in C against a folder with the header.
fn c_library(source: &Path, include: &Path, folder: &Path, name: &str) -> PathBuf {
    let library = folder.join(format!("libtrireme_{name}.so"));
    let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-I"]).arg(include);
    process::run(cc.arg(source).arg("-o").arg(&library), BUILD).unwrap();
    library
}

fn model(folder: &Path, subject: &Subject) -> PathBuf {
    let model = folder.join("m");
    fs::create_dir_all(model.join("1")).unwrap();
    fs::write(model.join("config.pbtxt"), subject.config).unwrap();
    fs::write(model.join("config.json"), (subject.json)().to_string()).unwrap();
    fs::write(model.join("conformance.json"), (subject.declared)().to_string()).unwrap();
    model
}

/// The library of the frozen copy, beside its name as the kit wants it.
fn library(release: &Path, subject: &Subject) -> PathBuf {
    release.join(format!("libtrireme_{}.so", subject.backend))
}

/// Checks of version 1.0's kit.
const CHECKS: usize = 17;

/// Runs a kit, and holds its table to what is expected; how many checks it has.
fn conforms(mut kit: Command, subject: &Subject) -> usize {
    let output = kit.output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let said = format!("{kit:?}\n{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    let of = |word: &str| -> Vec<&str> {
        rows.iter().filter(|row| row.get(1) == Some(&word)).map(|row| row[0]).collect()
    };
    let (mut excluded, mut expected) = (of("excluded"), subject.excluded.to_vec());
    excluded.sort_unstable();
    expected.sort_unstable();
    assert_eq!(excluded, expected, "{said}");
    // Today's kit may have more checks than the frozen one: no row may be anything but these two.
    assert_eq!(of("FAIL"), Vec::<&str>::new(), "{said}");
    of("pass").len() + excluded.len()
}

/// `trireme conformance` of this server.
fn in_todays_host(library: &Path, subject: &Subject) {
    let scratch = tempfile::tempdir().unwrap();
    let mut kit = Command::new(places::server().unwrap());
    kit.arg("conformance").arg(library).arg("--model").arg(model(scratch.path(), subject));
    let checks = conforms(kit, subject);
    assert!(checks >= CHECKS, "{checks} checks of {}", subject.backend);
}

/// The kit of the frozen copy, on its host.
fn in_the_frozen_host(library: &Path, subject: &Subject) {
    let scratch = tempfile::tempdir().unwrap();
    let mut kit = Command::new(built().join("trireme-kit"));
    kit.arg(library).arg(model(scratch.path(), subject));
    assert_eq!(conforms(kit, subject), CHECKS, "{}", subject.backend);
}

#[test]
fn backends_of_1_0_pass_the_kit_of_today() {
    let release = built();
    for subject in [IDENTITY, REPEAT] {
        in_todays_host(&library(&release, &subject), &subject);
    }
}

#[test]
fn backends_of_today_pass_the_kit_of_1_0() {
    in_todays_host(&places::backend(CALLER.backend).unwrap(), &CALLER);
    for subject in [IDENTITY, REPEAT, CALLER] {
        in_the_frozen_host(&places::backend(subject.backend).unwrap(), &subject);
    }
}

#[test]
fn the_example_in_c_passes_both_kits() {
    let scratch = tempfile::tempdir().unwrap();
    let old = c_library(
        &copy().join("c_backend/identity.c"),
        &copy().join("abi/include"),
        scratch.path(),
        "c_identity",
    );
    in_todays_host(&old, &C);
    in_the_frozen_host(&old, &C);
    let today = places::workspace();
    let today = c_library(
        &today.join("tests/abi-compat/c_backend/identity.c"),
        &today.join("backend-api/abi/include"),
        scratch.path(),
        "c_identity",
    );
    in_the_frozen_host(&today, &C);
}

/// `witness` of the copy calls everything that a host of 1.0 has, and tells what it was told.
#[test]
fn a_host_of_today_has_all_that_one_of_1_0_had() {
    let scratch = tempfile::tempdir().unwrap();
    let (backends, models) = (scratch.path().join("backends"), scratch.path().join("models"));
    for name in ["identity", "witness"] {
        fs::create_dir_all(backends.join(name)).unwrap();
    }
    let source = copy().join("c_backend/witness.c");
    c_library(&source, &copy().join("abi/include"), &backends.join("witness"), "witness");
    let identity = library(&built(), &IDENTITY);
    fs::copy(&identity, backends.join("identity").join(identity.file_name().unwrap())).unwrap();
    let config = |model: &str, text: &str| {
        fs::create_dir_all(models.join(model).join("1")).unwrap();
        fs::write(models.join(model).join("config.pbtxt"), text).unwrap();
    };
    let echo = r#"backend: "identity" max_batch_size: 8
        input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ] output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]"#;
    config("echo", echo);
    // Its tensors are what `complete_config` proposes.
    let witness = r#"backend: "witness" max_batch_size: 8 dynamic_batching { priority_levels: 3 default_priority_level: 1
        default_queue_policy { allow_timeout_override: true } }"#;
    config("witness", witness);
    // Without the check layer, and with it.
    for check in ["0", "1"] {
        let environment = [("TRIREME_ABI_CHECK", check)];
        let server = Server::start_in(&environment, &models, &backends, scratch.path()).unwrap();
        testify(&server, &models);
        assert!(server.stop().unwrap().success());
        let log = fs::read_to_string(scratch.path().join("server.log")).unwrap();
        assert!(log.contains("a line of the witness") && !log.contains("broke the rule"), "{log}");
    }
}

fn testify(server: &Server, models: &Path) {
    let body = json!({
        "id": "r1",
        "parameters": { "text": "words", "flag": true, "whole": 7, "part": 0.25, "priority": 2, "timeout": 9_000_000 },
        "inputs": [{ "name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3] }],
    });
    let (status, answer) = http::post(server.http, "/v2/models/witness/infer", &body).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["parameters"]["by"], "witness");
    let report = answer["outputs"][0]["data"][0].as_str().unwrap();
    let told = |key: &str| -> Vec<&str> {
        report
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, is)| is)
            .collect()
    };
    for (key, values) in EXPECTED {
        assert_eq!(told(key), values, "{key}\n{report}");
    }
    let model = models.canonicalize().unwrap().join("witness");
    assert!(
        told("model")[0].starts_with("witness 1 ")
            && told("model")[0].contains(&format!("{}/1 1", model.display())),
        "{report}"
    );
    assert!(told("settings")[0].starts_with(r#"{"cmdline":{"#), "{report}");
    assert!(told("answer")[0].contains(r#""model":"echo""#), "{report}");

    let ask = |prompt: &str| {
        http::post(server.http, "/v1/completions", &json!({ "model": "witness", "prompt": prompt })).unwrap()
    };
    assert_eq!(ask("pass"), (200, json!({ "object": "witness" })));
    let (status, answer) = ask("fail");
    assert_eq!((status, &answer["error"]["message"]), (418, &json!("no tea")));
}

/// What the witness tells of the first request.
const EXPECTED: [(&str, &[&str]); 48] = [
    ("instance", &["witness_0 0 1 0"]),
    ("id", &["r1"]),
    ("input_count", &["1"]),
    ("input", &["0"]),
    ("input.name", &["INPUT0"]),
    ("input.dtype", &["11"]),
    ("input.shape", &["1003"]),
    ("input.byte_size", &["12"]),
    ("input_buffer", &["0"]),
    ("sum", &["6"]),
    ("gather", &["0"]),
    ("gather.aligned", &["1"]),
    ("gather.sum", &["6"]),
    ("gather.nowhere", &["6"]),
    ("input.absent", &["4"]),
    ("parameter", &["0", "0", "0", "0"]),
    ("parameter.name", &["text", "flag", "whole", "part"]),
    ("parameter.kind", &["0", "2", "1", "3"]),
    ("parameter.value", &["words", "1", "7", "1"]),
    ("output_wanted", &["1"]),
    ("output_wanted.unknown", &["0"]),
    ("batch_size", &["1"]),
    ("priority", &["2"]),
    ("has_deadline", &["1"]),
    ("correlation_id", &["0"]),
    ("correlation_text", &[""]),
    ("trace_parent", &[""]),
    ("log_level", &["3"]),
    ("metric", &["0"]),
    ("metric.again", &["0"]),
    ("metric.same", &["1"]),
    ("allocate", &["0"]),
    ("allocate.good", &["1"]),
    ("allocate.nowhere", &["6"]),
    ("now_ns", &["1"]),
    ("extension.unknown", &["1"]),
    ("extension.fault", &["1"]),
    ("call.absent", &["3"]),
    ("answer.sum", &["42"]),
    ("cancelled", &["0"]),
    ("writable", &["1"]),
    ("extension.device", &["1"]),
    ("device_count", &["0"]),
    ("device.absent", &["4"]),
    ("device.allocate", &["1"]),
    ("device.copy", &["1"]),
    ("device.fill", &["1"]),
    ("device.event_join", &["1"]),
];
