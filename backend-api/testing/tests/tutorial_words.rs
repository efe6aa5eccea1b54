//! Step 3 of docs/writing-a-backend.md answers as often as it should and keeps the promises of the ABI.
#![forbid(unsafe_code)]
#[allow(dead_code)]
#[path = "../examples/words.rs"]
mod words;

mod conformance {
    trireme_testing::suite! {
        probe: super::words::trireme_backend_probe,
        config: r#"{
            "model_transaction_policy": { "decoupled": true },
            "input": [{ "name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1] }],
            "output": [{ "name": "WORD", "data_type": "TYPE_STRING", "dims": [1] }],
            "parameters": { "delay_ms": { "string_value": "2" } }
        }"#,
        declared: r#"{
            "cancellation_ms": 300,
            "requests": [
                {
                    "name": "three words",
                    "inputs": { "TEXT": { "shape": [2], "data": ["one two", "three"] } },
                    "answers": 3,
                    "outputs": { "WORD": { "shape": [1], "data": ["one"] } }
                },
                { "name": "no words", "inputs": { "TEXT": { "shape": [1], "data": [""] } }, "answers": 0 }
            ]
        }"#,
    }
}
