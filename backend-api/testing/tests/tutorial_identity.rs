//! Step 1 of docs/writing-a-backend.md keeps the promises of the ABI.
#![forbid(unsafe_code)]
#[allow(dead_code)]
#[path = "../examples/identity.rs"]
mod identity;

mod conformance {
    trireme_testing::suite! {
        probe: super::identity::trireme_backend_probe,
        config: r#"{
            "max_batch_size": 8,
            "input": [{ "name": "INPUT0", "data_type": "TYPE_STRING", "dims": [-1] }],
            "output": [{ "name": "OUTPUT0", "data_type": "TYPE_STRING", "dims": [-1] }]
        }"#,
    }
}
