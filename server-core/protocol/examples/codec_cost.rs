//! What decoding and encoding a small request costs: `cargo run --release -p trireme-protocol --example codec_cost`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
#![expect(clippy::disallowed_types, reason = "it measures real time")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use trireme_protocol::proto::{ModelInferRequest, model_infer_request::InferInputTensor};
use trireme_protocol::{
    DataType, InferResponse, Limits, OutputTensor, decode_http_infer, encode_http_infer,
    grpc::decode_grpc_infer,
};

const JSON: &str = r#"{"inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"FP32","parameters":{"binary_data_size":64}}],"outputs":[{"name":"OUTPUT0","parameters":{"binary_data":true}}]}"#;

/// The best of seven rounds, in nanoseconds a call.
fn best<T>(rounds: usize, mut call: impl FnMut() -> T) -> f64 {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e9 / rounds as f64
    };
    (0..7).map(round).fold(f64::INFINITY, f64::min)
}

fn show(name: &str, ns: f64) {
    println!("{name:<44} {ns:>12.0} ns");
}

fn main() {
    let limits = Limits::default();
    let body = Bytes::from([JSON.as_bytes(), &[0u8; 64]].concat());
    show(
        "HTTP binary 1x16 FP32, decode",
        best(200_000, || {
            decode_http_infer("identity", None, body.clone(), Some(JSON.len()), &limits).unwrap()
        }),
    );

    let numbers = |n: usize| (0..n).map(|i| format!("{}", (i as f32).sin())).collect::<Vec<_>>().join(",");
    let json = |n: usize| {
        Bytes::from(format!(
            r#"{{"inputs":[{{"name":"INPUT0","shape":[1,{n}],"datatype":"FP32","data":[{}]}}]}}"#,
            numbers(n)
        ))
    };
    let small = json(16);
    show(
        "HTTP JSON 1x16 FP32, decode",
        best(100_000, || decode_http_infer("identity", None, small.clone(), None, &limits).unwrap()),
    );
    let large = json(150_528);
    show(
        "HTTP JSON 1x150528 FP32, decode",
        best(10, || decode_http_infer("identity", None, large.clone(), None, &limits).unwrap()),
    );

    let tensor = |n: usize, binary| OutputTensor {
        name: "OUTPUT0".into(),
        datatype: DataType::Fp32,
        shape: [1, n as i64].as_slice().into(),
        data: (0..n).flat_map(|i| (i as f32).sin().to_le_bytes()).collect::<Vec<u8>>().into(),
        binary,
        shared_memory: None,
        held: None,
    };
    let answer = |tensor| InferResponse {
        model_name: "identity".into(),
        model_version: 1,
        outputs: vec![tensor],
        ..Default::default()
    };
    for (name, rounds, response) in [
        ("HTTP binary 1x16 FP32, encode", 200_000, answer(tensor(16, true))),
        ("HTTP binary 1 MiB, encode", 200_000, answer(tensor(1 << 18, true))),
        ("HTTP JSON 1x16 FP32, encode", 100_000, answer(tensor(16, false))),
        ("HTTP JSON 1x150528 FP32, encode", 10, answer(tensor(150_528, false))),
    ] {
        show(name, best(rounds, || encode_http_infer(&response).unwrap()));
    }

    let message = ModelInferRequest {
        model_name: "identity".into(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".into(),
            datatype: "FP32".into(),
            shape: vec![1, 16],
            ..Default::default()
        }],
        raw_input_contents: vec![Bytes::from_static(&[0; 64])],
        ..Default::default()
    };
    show(
        "gRPC 1x16 FP32, message to request (and its clone)",
        best(200_000, || decode_grpc_infer(message.clone(), &limits).unwrap()),
    );
}
