//! Configurations in JSON, as the load call takes them and the configuration call gives them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use expect_test::{Expect, expect};
use trireme_model_config::{Draft, Severity, complete, config_from_json, config_json};
use trireme_protocol::proto;

#[test]
fn names_numbers_and_enums_in_every_form() {
    let config = config_from_json(
        r#"{"name": "m", "maxBatchSize": 8, "input": [{"name": "A", "data_type": "type_fp32", "dims": ["16", -1]}],
            "dynamic_batching": {"max_queue_delay_microseconds": "5",
                "priority_queue_policy": {"2": {"timeout_action": "Delay"}}},
            "instance_group": [{"kind": "KIND_cpu"}, {"kind": 1}], "parameters": {"a": {"string_value": "b"}}}"#,
    )
    .unwrap();
    assert_eq!(config.max_batch_size, 8);
    assert_eq!(config.input[0].data_type(), proto::DataType::TypeFp32);
    assert_eq!(config.input[0].dims, [16, -1]);
    let kinds: Vec<_> = config.instance_group.iter().map(|group| group.kind().as_str_name()).collect();
    assert_eq!(kinds, ["KIND_CPU", "KIND_GPU"]);
    assert_eq!(config_from_json(&config_json(&config)).unwrap(), config);
}

#[test]
fn a_list_of_one_may_lack_its_brackets() {
    let config = config_from_json(
        r#"{"instance_group": {"count": 2, "kind": "kind_cpu"}, "input": {"name": "A", "dims": 4},
            "dynamic_batching": {"preferred_batch_size": 3}}"#,
    )
    .unwrap();
    assert_eq!(
        (config.instance_group[0].count, config.instance_group[0].kind().as_str_name()),
        (2, "KIND_CPU")
    );
    assert_eq!(config.input[0].dims, [4]);
    config_from_json(r#"{"name": ["m"]}"#).unwrap_err();
}

fn refused(text: &str, expected: Expect) {
    let finding = Draft::from_json(text).unwrap_err();
    assert_eq!(finding.severity, Severity::Error);
    expected.assert_eq(&finding.to_string());
}

#[test]
fn what_is_wrong_is_refused() {
    refused(
        "{\"name\": \"m\",\n \"max_batch\": 1}",
        expect!["configuration: unrecognized field name 'max_batch' at line 2 column 12"],
    );
    refused("{\"name\": \"m\"", expect!["configuration: EOF while parsing an object at line 1 column 12"]);
    refused("{\"name\": \"m\"} x", expect!["configuration: trailing characters at line 1 column 15"]);
    refused("[]", expect!["configuration: invalid type: sequence, expected a map at line 1 column 0"]);
    refused("", expect!["configuration: EOF while parsing a value at line 1 column 0"]);
    refused(
        "{\"max_batch_size\": 99999999999}",
        expect!["configuration: out of range integral type conversion attempted at line 1 column 30"],
    );
    refused(
        "{\"input\": [{\"data_type\": \"TYPE_FP33\"}]}",
        expect!["configuration: unrecognized enum value 'TYPE_FP33' at line 1 column 36"],
    );
    refused(
        "{\"dynamic_batching\": {}, \"sequence_batching\": {}}",
        expect!["configuration: multiple fields provided for oneof 'scheduling_choice' at line 1 column 49"],
    );
    let deep = "[".repeat(100_000);
    refused(&deep, expect!["configuration: invalid type: sequence, expected a map at line 1 column 0"]);
    let long = format!("{{\"name\": \"{}\"}}", "m".repeat(1 << 20));
    refused(&long, expect!["configuration: has 1048588 bytes; at most 1048576 are read"]);
}

#[test]
fn an_error_of_meaning_in_json_has_no_place() {
    let mut draft = Draft::from_json(r#"{"backend": "identity", "max_batch_size": -1}"#).unwrap();
    draft.normalise("m", &[]);
    let findings = draft.check("m").unwrap_err();
    assert_eq!(findings[0].to_string(), "max_batch_size is -1; it must be 0 (no batching) or more");
}

#[test]
fn a_backend_completes_what_is_open() {
    let mut config = config_from_json(r#"{"name": "m", "input": [{"name": "MINE"}]}"#).unwrap();
    let patch = r#"{"max_batch_size": 4, "input": [{"name": "A"}], "output": [{"name": "B"}],
                    "dynamic_batching": {}, "model_transaction_policy": {"decoupled": true}}"#;
    complete(&mut config, patch).unwrap();
    assert_eq!((config.max_batch_size, config.input[0].name.as_str()), (4, "MINE"));
    assert_eq!(config.output[0].name, "B");
    assert!(config.scheduling_choice.is_some());
    assert!(config.model_transaction_policy.as_ref().unwrap().decoupled);

    let before = config.clone();
    complete(&mut config, r#"{"max_batch_size": 9, "sequence_batching": {}, "output": []}"#).unwrap();
    assert_eq!(config, before, "what stands stays");
}

#[test]
fn a_backend_proposes_gpus_for_groups_that_name_none() {
    let patch = r#"{"instance_group": [{"kind": "KIND_GPU", "gpus": [0, 1]}]}"#;
    let groups = |text: &str| {
        let mut config = config_from_json(text).unwrap();
        complete(&mut config, patch).unwrap();
        let shown = config.instance_group.iter().map(|g| format!("{:?} {} {:?}", g.kind(), g.count, g.gpus));
        shown.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(groups("{}"), "Gpu 1 [0, 1]");
    assert_eq!(
        groups(
            r#"{"instance_group": [{"count": 2}, {"kind": "KIND_CPU"}, {"kind": "KIND_GPU", "gpus": [1], "count": 3}]}"#
        ),
        "Gpu 2 [0, 1], Cpu 0 [], Gpu 3 [1]"
    );
}

#[test]
fn a_backend_may_extend_the_tensors() {
    let written =
        r#"{"name": "m", "input": [{"name": "A"}, {"name": "B", "data_type": "TYPE_FP32", "dims": [1]}]}"#;
    let mut config = config_from_json(written).unwrap();
    let tensor = |name: &str| format!(r#"{{"name": "{name}", "data_type": "TYPE_INT32", "dims": [2]}}"#);
    let (a, b, c) = (tensor("A"), tensor("B"), tensor("C"));
    complete(&mut config, &format!(r#"{{"extends": true, "input": [{a}, {b}, {c}], "output": [{c}]}}"#))
        .unwrap();
    let tensors: Vec<_> = config
        .input
        .iter()
        .map(|t| (t.name.as_str(), t.data_type().as_str_name(), t.dims.as_slice()))
        .collect();
    let expected = [("A", "TYPE_INT32", &[2][..]), ("B", "TYPE_FP32", &[1]), ("C", "TYPE_INT32", &[2])];
    assert_eq!((tensors, config.output.len()), (expected.to_vec(), 1));
}

#[test]
fn a_backend_may_not_set_more() {
    let mut config = proto::ModelConfig::default();
    let mut refuse = |patch: &str, expected: Expect| {
        let error = complete(&mut config, patch).unwrap_err();
        assert_eq!(config, proto::ModelConfig::default(), "nothing of a refused proposal is kept");
        expected.assert_eq(&error);
    };
    refuse(
        r#"{"max_batch_size": 1, "parameters": {}}"#,
        expect!["the backend's proposal holds 'parameters', which a backend may not set"],
    );
    refuse(
        r#"{"max_batch_size": 1, "input": [{"nam": "A"}]}"#,
        expect!["the backend's proposal: unrecognized field name 'nam' at line 1 column 38"],
    );
    refuse(
        "max_batch_size: 1",
        expect!["the backend's proposal is not JSON: expected value at line 1 column 1"],
    );
}
