//! Sums by row, by name and by a state that the server keeps.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use trireme_testing::Model;

fn load(more: &[&str], outputs: &[&str]) -> Model {
    let tensor = |name: &str| format!(r#"{{ "name": "{name}", "data_type": "TYPE_INT32", "dims": [1] }}"#);
    let list = |names: &[&str]| names.iter().map(|name| tensor(name)).collect::<Vec<_>>().join(",");
    let inputs = [&["INPUT", "START"], more].concat();
    let config =
        format!(r#"{{ "max_batch_size": 4, "input": [{}], "output": [{}] }}"#, list(&inputs), list(outputs));
    Model::load(&trireme_sequence::trireme_backend_probe, &config).unwrap()
}

/// Sends one request of a batch of one and returns its outputs.
fn step(model: &Model, inputs: &[(&str, i32)], output: &str) -> i32 {
    let request = inputs.iter().fold(model.request(), |request, (name, value)| {
        request.input(name, &[1, 1], std::slice::from_ref(value))
    });
    request.send().answer().values::<i32>(output)[0]
}

#[test]
fn a_row_adds_up_until_the_next_start() {
    let model = load(&[], &["OUTPUT"]);
    let sums: Vec<i32> = [(3, 1), (4, 0), (5, 0), (10, 1), (1, 0)]
        .iter()
        .map(|(value, start)| step(&model, &[("INPUT", *value), ("START", *start)], "OUTPUT"))
        .collect();
    assert_eq!(sums, [3, 7, 12, 10, 11]);
}

#[test]
fn names_keep_sums_apart() {
    let model = load(&["CORRID"], &["OUTPUT"]);
    let sums: Vec<i32> = [(1, 1, 7), (10, 1, 8), (2, 0, 7), (20, 0, 8)]
        .iter()
        .map(|(value, start, name)| {
            step(&model, &[("INPUT", *value), ("START", *start), ("CORRID", *name)], "OUTPUT")
        })
        .collect();
    assert_eq!(sums, [1, 10, 3, 30]);
}

#[test]
fn a_state_of_the_server_is_what_counts() {
    let model = load(&["INPUT_STATE"], &["OUTPUT", "OUTPUT_STATE"]);
    for output in ["OUTPUT", "OUTPUT_STATE"] {
        assert_eq!(step(&model, &[("INPUT", 5), ("START", 0), ("INPUT_STATE", 37)], output), 42);
    }
}
