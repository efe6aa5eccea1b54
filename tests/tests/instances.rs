//! `count: 3` in a real server: three batches at once, no more and no fewer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types, reason = "a real server, real time")]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use trireme_tests::{http, places, server::Server};

const CONFIG: &str = r#"
backend: "identity"
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 1 ] } ]
parameters { key: "execute_delay_ms" value: { string_value: "200" } }
instance_group [ { count: 3 kind: KIND_CPU } ]
"#;

#[test]
fn three_instances_run_three_requests_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let repository = scratch.path().join("models");
    fs::create_dir_all(repository.join("slow/1")).unwrap();
    fs::write(repository.join("slow/config.pbtxt"), CONFIG).unwrap();
    places::backend("identity").unwrap();
    let server = Server::start(&repository, &places::target().join("backends"), scratch.path()).unwrap();
    let to = server.http;

    let start = Instant::now();
    let ask = move |number: i32| {
        let input = json!({ "name": "INPUT0", "datatype": "INT32", "shape": [1], "data": [number] });
        let answer = http::post(to, "/v2/models/slow/infer", &json!({ "inputs": [input] })).unwrap();
        assert_eq!((answer.0, &answer.1["outputs"][0]["data"]), (200, &json!([number])));
        start.elapsed()
    };
    let clients: Vec<_> = (0..9).map(|number| thread::spawn(move || ask(number))).collect();
    let mut ends: Vec<Duration> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    ends.sort();
    // Never more than three at once: the n-th round of three cannot end before n times the delay.
    for (number, end) in (0..).zip(&ends) {
        assert!(*end >= Duration::from_millis(200 * (number / 3 + 1)), "{ends:?}");
    }
    // Three indeed: two at once would need five rounds.
    assert!(ends[8] < Duration::from_millis(1000), "{ends:?}");

    let (_, statistics) = http::get(to, "/v2/models/slow/stats").unwrap();
    let model = &statistics["model_stats"][0];
    assert_eq!((&model["inference_count"], &model["execution_count"]), (&json!(9), &json!(9)), "{model}");
    let computing = model["inference_stats"]["compute_infer"]["ns"].as_u64().unwrap();
    assert!(computing >= 9 * 200_000_000, "{model}");
    assert!(server.stop().unwrap().success());
}
