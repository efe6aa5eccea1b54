//! Step 2 of docs/writing-a-backend.md computes what it says and keeps the promises of the ABI.
#![forbid(unsafe_code)]
#[allow(dead_code)]
#[path = "../examples/softmax.rs"]
mod softmax;

mod conformance {
    trireme_testing::suite! {
        probe: super::softmax::trireme_backend_probe,
        config: r#"{
            "max_batch_size": 8,
            "input": [{ "name": "SCORES", "data_type": "TYPE_FP32", "dims": [-1] }],
            "output": [{ "name": "PROBABILITIES", "data_type": "TYPE_FP32", "dims": [-1] }]
        }"#,
        declared: r#"{
            "requests": [{
                "name": "equal scores",
                "inputs": { "SCORES": { "shape": [2, 4], "data": [1, 1, 1, 1, 2, 2, -100, -100] } },
                "outputs": { "PROBABILITIES": { "shape": [2, 4], "data": [0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0, 0] } }
            }]
        }"#,
    }
}
