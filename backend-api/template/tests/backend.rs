use trireme_testing::{Model, StatusCode};

const CONFIG: &str = r#"{
    "max_batch_size": 8,
    "input": [{ "name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1] }],
    "output": [{ "name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1] }],
    "parameters": { "factor": { "string_value": "3" } }
}"#;

fn load(config: &str) -> Result<Model, trireme_testing::Status> {
    Model::load(&trireme_{{name}}::trireme_backend_probe, config)
}

#[test]
fn values_are_multiplied() {
    let model = load(CONFIG).unwrap();
    let answer = model.request().input("INPUT0", &[1, 3], &[1f32, 2.0, -0.5]).send().answer();
    assert_eq!(answer.shape("OUTPUT0"), [1, 3]);
    assert_eq!(answer.values::<f32>("OUTPUT0"), [3.0, 6.0, -1.5]);
}

#[test]
fn each_request_of_a_batch_has_its_answer() {
    let model = load(CONFIG).unwrap();
    let batch = [1f32, 2.0].map(|x| model.request().input("INPUT0", &[1, 1], &[x]));
    for (pending, expected) in model.send(batch.into()).into_iter().zip([3f32, 6.0]) {
        assert_eq!(pending.answer().values::<f32>("OUTPUT0"), [expected]);
    }
}

#[test]
fn a_missing_input_is_the_clients_fault() {
    let (code, message) = load(CONFIG).unwrap().request().send().error();
    assert_eq!((code, message.as_str()), (StatusCode::INVALID_ARG, "input 'INPUT0' is missing"));
}

#[test]
fn a_factor_that_is_no_number_keeps_the_model_from_loading() {
    let error = load(&CONFIG.replace("\"3\"", "\"three\"")).err().unwrap();
    assert_eq!(error.message, "parameter 'factor' has the value 'three', which is not valid");
}
