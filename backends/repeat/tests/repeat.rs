//! One answer for each element, in order, and what happens when the reader is slow or goes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types, reason = "real threads, real time")]

use std::time::{Duration, Instant};

use trireme_testing::{Model, Pending, StatusCode};

const CONFIG: &str = r#"{
    "model_transaction_policy": { "decoupled": true },
    "input": [
        { "name": "IN", "data_type": "TYPE_INT32", "dims": [-1] },
        { "name": "DELAY", "data_type": "TYPE_UINT32", "dims": [-1] },
        { "name": "WAIT", "data_type": "TYPE_UINT32", "dims": [1] }
    ],
    "output": [
        { "name": "OUT", "data_type": "TYPE_INT32", "dims": [1] },
        { "name": "IDX", "data_type": "TYPE_UINT32", "dims": [1] }
    ]
}"#;

fn load() -> Model {
    Model::load(&trireme_repeat::trireme_backend_probe, CONFIG).unwrap()
}

fn request<'a>(model: &'a Model, values: &[i32], delays: &[u32], wait: u32) -> trireme_testing::Request<'a> {
    model
        .request()
        .input("IN", &[values.len() as i64], values)
        .input("DELAY", &[delays.len() as i64], delays)
        .input("WAIT", &[1], &[wait])
}

fn pairs(pending: Pending) -> Vec<(i32, u32)> {
    let answers = pending.answers();
    answers.iter().map(|answer| (answer.values("OUT")[0], answer.values("IDX")[0])).collect()
}

#[test]
fn each_element_comes_back_in_order_with_its_number() {
    let model = load();
    let start = Instant::now();
    let answers = pairs(request(&model, &[4, 2, 0], &[5, 10, 15], 0).send());
    assert_eq!(answers, [(4, 0), (2, 1), (0, 2)]);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn no_elements_no_answers_but_an_end() {
    assert_eq!(pairs(request(&load(), &[], &[], 0).send()), []);
}

#[test]
fn wait_may_be_left_out_and_keeps_the_instance_busy_when_given() {
    let model = load();
    assert_eq!(pairs(model.request().input("IN", &[1], &[1]).input("DELAY", &[1], &[0u32]).send()), [(1, 0)]);
    assert_eq!(pairs(request(&model, &[1], &[0], 40).send()), [(1, 0)]);
    let spans = model.finish();
    assert!(spans[1].end - spans[1].start >= Duration::from_millis(40));
}

#[test]
fn answers_come_after_execute_has_returned_and_requests_overlap() {
    let model = load();
    let slow = request(&model, &[1, 2], &[0, 400], 0).send();
    let fast = request(&model, &[3], &[0], 0).send();
    assert_eq!(pairs(fast), [(3, 0)]);
    assert_eq!(slow.next().unwrap().values::<i32>("OUT"), [1]);
    assert_eq!(slow.unread(), 0, "the second answer is still to come");
    assert_eq!(pairs(slow), [(2, 1)]);
}

#[test]
fn a_slow_reader_pauses_it() {
    let model = load();
    let values: Vec<i32> = (0..100).collect();
    let pending = request(&model, &values, &[0; 100], 0).capacity(2).send();
    for expected in 0..100 {
        assert!(pending.unread() <= 2);
        assert_eq!(pending.next().unwrap().values::<i32>("OUT"), [expected]);
    }
    assert!(pending.next().is_none());
}

#[test]
fn a_cancelled_request_ends_at_once() {
    let model = load();
    let start = Instant::now();
    let pending = request(&model, &[1, 2], &[0, 60_000], 0).send();
    assert_eq!(pending.next().unwrap().values::<i32>("OUT"), [1]);
    pending.cancel();
    let (code, _) = pending.error();
    assert_eq!(code, StatusCode::CANCELLED);
    drop(model);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn cancelling_while_paused_ends_it_too() {
    let model = load();
    let pending = request(&model, &[1, 2, 3], &[0; 3], 0).capacity(1).send();
    while pending.unread() == 0 {
        std::thread::yield_now();
    }
    pending.cancel();
    let answers = pending.answers();
    assert_eq!(answers.last().unwrap().error.as_ref().unwrap().code, StatusCode::CANCELLED);
}

#[test]
fn lists_of_different_length_are_refused() {
    let (code, message) = request(&load(), &[1, 2], &[0], 0).send().error();
    assert_eq!(code, StatusCode::INVALID_ARG);
    assert_eq!(message, "expected IN and DELAY shape to match, got [2] and [1]");
}

#[test]
fn a_model_that_is_not_decoupled_repeats_one_element() {
    let config = CONFIG.replace("true", "false");
    let model = Model::load(&trireme_repeat::trireme_backend_probe, &config).unwrap();
    assert_eq!(pairs(request(&model, &[7], &[0], 0).send()), [(7, 0)]);
    let (code, message) = request(&model, &[1, 2], &[0, 0], 0).send().error();
    assert_eq!(code, StatusCode::INVALID_ARG);
    assert!(message.contains("IN has 2 elements"), "{message}");
}
