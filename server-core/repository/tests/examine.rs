//! Repositories as they are, and what is said of each of their models.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use expect_test::{Expect, expect};
use trireme_model_config::Capabilities;
use trireme_repository::{ExamineOptions, examine, scan};

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A repository of `files` beside the one backend `identity`; what is said has no path of this machine.
fn said(files: &[(&str, &str)], fallback: &[(&str, &str)], allow_model_backends: bool) -> String {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "backends/identity/libtrireme_identity.so", "");
    for (file, text) in files {
        write(root.path(), &format!("models/{file}"), text);
    }
    let fallback: BTreeMap<String, String> =
        fallback.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let options = ExamineOptions {
        backend_directory: &root.path().join("backends"),
        allow_model_backends,
        backend_fallback: &fallback,
        capabilities: Capabilities::default(),
    };
    let mut said = String::new();
    for model in scan(&[root.path().join("models")], None).unwrap() {
        let report = examine(&model, &options);
        for finding in report.findings {
            said.push_str(&format!("{:?}: {finding}\n", finding.severity));
        }
        said.push_str(&format!("{}: {}\n", model.name, report.verdict));
    }
    let machine = root.path().canonicalize().unwrap();
    said.replace(machine.to_str().unwrap(), "").replace(root.path().to_str().unwrap(), "")
}

fn check(files: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&said(files, &[], false));
}

#[test]
fn models_that_run() {
    check(
        &[
            ("plain/config.pbtxt", "backend: \"identity\""),
            ("plain/1/x", ""),
            ("by_name.identity/3/x", ""),
            ("two/config.pbtxt", "backend: \"identity\" version_policy { specific { versions: [ 1, 5 ] } }"),
            ("two/1/x", ""),
            ("two/02/x", ""),
            ("cached/config.pbtxt", "backend: \"identity\"\nresponse_cache { enable: true }"),
            ("cached/1/x", ""),
        ],
        expect![[r#"
            by_name.identity: runs
            Warning: /models/cached/config.pbtxt:2:1: there is no response cache: every request is computed
              | response_cache { enable: true }
              | ^^^^^^^^^^^^^^
            cached: runs
            plain: runs
            Warning: /models/two: the directory '02' begins with 0 and is passed over: call it '2'
            Warning: /models/two/config.pbtxt:1:21: version 5 of the version policy has no directory
              | backend: "identity" version_policy { specific { versions: [ 1, 5 ] } }
              |                     ^^^^^^^^^^^^^^
            two: runs
        "#]],
    );
}

#[test]
fn models_that_need_a_backend() {
    let files = [
        ("net/1/model.onnx", ""),
        ("typo/config.pbtxt", "name: \"typo\"\nbackend: \"identty\""),
        ("typo/1/x", ""),
        ("own/config.pbtxt", "backend: \"own\""),
        ("own/1/libtrireme_own.so", ""),
    ];
    check(
        &files,
        expect![[r#"
        Error: unable to find backend 'onnxruntime': '/backends/onnxruntime/libtrireme_onnxruntime.so' does not exist, there are 'identity'
        net: needs backend 'onnxruntime'
        Error: /models/own/config.pbtxt:1:1: the library '/models/own/1/libtrireme_own.so' of backend 'own' lies in the model's directory, and such libraries are not loaded unless --allow-model-backends is given
          | backend: "own"
          | ^^^^^^^
        own: needs backend 'own'
        Error: /models/typo/config.pbtxt:2:1: unable to find backend 'identty': '/backends/identty/libtrireme_identty.so' does not exist, did you mean 'identity'?
          | backend: "identty"
          | ^^^^^^^
        typo: needs backend 'identty'
    "#]],
    );
    expect![[r#"
        net: runs
        own: runs
        Error: /models/typo/config.pbtxt:2:1: unable to find backend 'identty': none of '/models/typo/1/libtrireme_identty.so', '/models/typo/libtrireme_identty.so' and '/backends/identty/libtrireme_identty.so' exists, did you mean 'identity'?
          | backend: "identty"
          | ^^^^^^^
        typo: needs backend 'identty'
    "#]].assert_eq(&said(&files, &[("onnxruntime", "identity")], true));
}

#[test]
fn models_that_cannot_run() {
    check(
        &[
            ("unknown/1/x", ""),
            ("syntax/config.pbtxt", "backend: \"identity\"\nmax_batch_sizee: 1"),
            ("syntax/1/x", ""),
            ("rule/config.pbtxt", "backend: \"identity\"\nmax_batch_size: -1"),
            ("rule/1/x", ""),
            ("named/config.pbtxt", "name: \"other\"\nbackend: \"identity\""),
            ("named/1/x", ""),
            ("empty/config.pbtxt", "backend: \"identity\""),
            ("policy/config.pbtxt", "backend: \"identity\" version_policy { specific { versions: 7 } }"),
            ("policy/1/x", ""),
            ("sequence/config.pbtxt", "backend: \"identity\"\nsequence_batching { }"),
            ("sequence/1/x", ""),
            ("bad..name/1/x", ""),
        ],
        expect![[r#"
            bad..name: cannot run, because the directory name 'bad..name' is not allowed as a model name
            empty: cannot run, because it has no version that its version policy wants
            Error: /models/named/config.pbtxt:1:1: unexpected directory name 'named' for model 'other', directory name must equal model name
              | name: "other"
              | ^^^^
              = leave the field out, or rename the directory
            named: cannot run, because its configuration breaks a rule
            policy: cannot run, because it has no version that its version policy wants
            Error: /models/rule/config.pbtxt:2:1: max_batch_size is -1; it must be 0 (no batching) or more
              | max_batch_size: -1
              | ^^^^^^^^^^^^^^
            rule: cannot run, because its configuration breaks a rule
            Error: /models/sequence/config.pbtxt:2:1: sequence batching is not implemented yet
              | sequence_batching { }
              | ^^^^^^^^^^^^^^^^^
            sequence: cannot run, because its configuration breaks a rule
            Error: /models/syntax/config.pbtxt:2:1: unknown field 'max_batch_sizee' in ModelConfig, did you mean 'max_batch_size'?
              | max_batch_sizee: 1
              | ^^^^^^^^^^^^^^^
            syntax: cannot run, because its configuration cannot be read
            unknown: cannot run, because it has no config.pbtxt, and no file of its version tells which backend it needs
        "#]],
    );
}
