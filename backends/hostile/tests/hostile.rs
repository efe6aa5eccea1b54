//! No fault takes the server along, and no request stays without an answer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use trireme_testing::{Model, Status, StatusCode};

fn load(fault: &str) -> Result<Model, Status> {
    let config = format!(
        r#"{{
            "max_batch_size": 4,
            "parameters": {{ "fault": {{ "string_value": "{fault}" }} }},
            "input": [{{ "name": "INPUT0", "data_type": "TYPE_FP32", "dims": [1] }}],
            "output": [{{ "name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [1] }}]
        }}"#
    );
    Model::load(&trireme_hostile::trireme_backend_probe, &config)
}

fn request(model: &Model) -> trireme_testing::Request<'_> {
    model.request().input("INPUT0", &[1, 1], &[1f32])
}

#[test]
fn panics_while_loading_are_errors() {
    for (fault, place) in [("panic_load", "load"), ("panic_create", "create_instance")] {
        let error = load(fault).err().unwrap();
        assert_eq!(error.code, StatusCode::INTERNAL);
        assert!(error.message.contains(&format!("asked to panic in {place}")), "{error}");
    }
    assert!(load("unheard_of").err().unwrap().message.starts_with("unknown fault 'unheard_of'"));
}

#[test]
fn a_panic_answers_the_whole_batch_and_the_next_one_is_run() {
    let model = load("panic_execute").unwrap();
    for _ in 0..2 {
        for pending in model.send(vec![request(&model), request(&model)]) {
            assert_eq!(pending.error().0, StatusCode::INTERNAL);
        }
    }
    assert_eq!(model.finish().len(), 2);
}

#[test]
fn a_request_that_is_dropped_is_answered() {
    for fault in ["drop", "late_drop"] {
        let model = load(fault).unwrap();
        assert_eq!(request(&model).send().error().0, StatusCode::INTERNAL, "{fault}");
    }
}

#[test]
fn a_shape_that_does_not_fit_the_data_is_an_error() {
    let model = load("wrong_shape").unwrap();
    assert_eq!(request(&model).send().error().0, StatusCode::INTERNAL);
}

/// What the harness itself finds: the ABI cannot know a model's configuration.
#[test]
fn tensors_against_the_configuration_fail_the_test() {
    for (fault, complaint) in [("wrong_name", "no output 'NOBODY'"), ("wrong_type", "configured is Fp32")] {
        let model = load(fault).unwrap();
        let pending = request(&model).send();
        let panic = catch_unwind(AssertUnwindSafe(|| pending.answer())).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(complaint), "{message}");
    }
}

#[test]
fn a_second_answer_is_seen() {
    let model = load("twice").unwrap();
    assert_eq!(
        request(&model).send().answers().len(),
        2,
        "the model is not decoupled: a server refuses this"
    );
}
