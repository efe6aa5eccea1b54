//! Whole configurations: what each becomes, or what is said of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use expect_test::expect_file;
use trireme_model_config::{Capabilities, Draft, config_json};

fn texts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let mut texts: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    texts.retain(|path| path.extension().is_some_and(|end| end == "pbtxt"));
    texts.sort();
    assert!(!texts.is_empty());
    texts
}

fn parse(path: &Path) -> Result<Draft, String> {
    let name = Path::new(path.file_name().unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    Draft::parse(Some(name), text).map_err(|finding| finding.to_string())
}

/// A server that has everything.
fn everything() -> Capabilities {
    Capabilities {
        sequence_batching: true,
        ensemble_scheduling: true,
        preserve_ordering: true,
        priority_levels: true,
        queue_policies: true,
        response_cache: true,
        model_warmup: true,
        batch_input_output: true,
        shape_tensors: true,
        labels: true,
        rate_limiter: true,
        host_policies: true,
        secondary_devices: true,
        repository_agents: true,
        model_operations: true,
        model_metrics: true,
        runtime: true,
    }
}

/// Each text beside the answer of the configuration call, and beside what a server with the bare minimum says.
#[test]
fn served() {
    for path in texts("served") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut draft = parse(&path).unwrap();
        draft.normalise(name, &[]);
        let (_, warnings) =
            draft.check_for(name, &everything()).unwrap_or_else(|findings| panic!("{findings:#?}"));
        assert!(warnings.is_empty() || name == "same_key_twice", "{warnings:#?}");
        let json: serde_json::Value = serde_json::from_str(&config_json(&draft.proto)).unwrap();
        expect_file![path.with_extension("json")].assert_eq(&format!("{json:#}\n"));
        let found = draft.check(name).map_or_else(|findings| findings, |(_, warnings)| warnings);
        let found: String =
            found.iter().map(|finding| format!("{:?}: {finding}\n", finding.severity)).collect();
        expect_file![path.with_extension("bare.txt")].assert_eq(&found);
    }
}

/// Each text beside the message about it.
#[test]
fn refused() {
    for path in texts("refused") {
        let message = parse(&path).err().unwrap_or_else(|| panic!("{} is read", path.display()));
        expect_file![path.with_extension("txt")].assert_eq(&format!("{message}\n"));
    }
}

/// The examples of the README, without their weights.
#[test]
fn examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut read = 0;
    let examples = ["model_repository", "model_repository_onnx"].map(|folder| root.join(folder));
    for entry in examples.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let dir = entry.unwrap().path();
        let (name, path) = (dir.file_name().unwrap().to_str().unwrap(), dir.join("config.pbtxt"));
        if !path.is_file() {
            continue;
        }
        let mut draft = Draft::read(&path).unwrap_or_else(|finding| panic!("{finding}"));
        draft.normalise(name, &[]);
        let checked = draft.check_for(name, &everything());
        let (_, warnings) = checked.unwrap_or_else(|findings| panic!("{findings:#?}"));
        assert_eq!(warnings, [], "{name}");
        read += 1;
    }
    assert!(read >= 15, "{read} examples");
}
