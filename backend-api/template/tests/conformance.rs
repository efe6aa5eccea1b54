//! The promises of the ABI, one test each. See `docs/writing-a-backend.md` of Trireme for what they hold, and for
//! `conformance.json`, whose content goes into `declared`.

trireme_testing::suite! {
    probe: trireme_{{name}}::trireme_backend_probe,
    config: r#"{
        "max_batch_size": 8,
        "input": [{ "name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1] }],
        "output": [{ "name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1] }],
        "parameters": { "factor": { "string_value": "3" } }
    }"#,
    declared: r#"{
        "requests": [{
            "name": "three numbers",
            "inputs": { "INPUT0": { "shape": [1, 3], "data": [1, 2, -0.5] } },
            "outputs": { "OUTPUT0": { "shape": [1, 3], "data": [3, 6, -1.5] } }
        }]
    }"#,
}
