//! What the harness finds in a backend that is not well.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use trireme_sdk::export::probe;
use trireme_sdk::{InstanceContext, LoadModel, ModelContext, Request, Response, Result, Stateless};
use trireme_testing::{Model, Probe};

/// Answers, and keeps the request when its id says so.
struct Keeper;

static KEPT: Mutex<Vec<Request>> = Mutex::new(Vec::new());
static PROBE: Probe = probe::<Stateless<Keeper>>("keeper\0", "0\0");
const CONFIG: &str = r#"{
    "input": [{ "name": "X", "data_type": "TYPE_INT32", "dims": [-1] }],
    "output": [{ "name": "Y", "data_type": "TYPE_INT32", "dims": [-1] }]
}"#;

impl LoadModel for Keeper {
    fn load(_: ModelContext) -> Result<Self> {
        Ok(Self)
    }
}

impl trireme_sdk::Model for Keeper {
    type Instance = Self;
    fn create_instance(&self, _: InstanceContext) -> Result<Self> {
        Ok(Self)
    }
}

impl trireme_sdk::Instance for Keeper {
    fn execute(&mut self, batch: Vec<Request>) {
        for mut request in batch {
            let first = request.input("X").and_then(|input| input.value::<i32>());
            if first == Ok(0) {
                request.answer(|request| Response::new().forward("Y", request, &request.input("X")?));
            } else if let Ok(response) = Response::new().tensor("Y", &[1], vec![1]) {
                request.responder().send(response);
                KEPT.lock().unwrap().push(request);
            }
        }
    }
}

fn message(work: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_backend_that_keeps_a_request_fails_the_test() {
    let well = Model::load(&PROBE, CONFIG).unwrap();
    let answer = well.request().input("X", &[1], &[0]).send().answer();
    assert_eq!(answer.values::<i32>("Y"), [0]);
    drop(well);

    let model = Model::load(&PROBE, CONFIG).unwrap();
    let pending = model.request().input("X", &[1], &[1]).send();
    assert_eq!(pending.next().unwrap().values::<i32>("Y"), [1]);
    // The responder and the input's buffer.
    let found = message(|| drop(model));
    assert!(found.contains("left: 2") && found.contains("still holds"), "{found}");
    KEPT.lock().unwrap().clear();
    assert!(pending.next().unwrap().error.is_some(), "dropped without a last answer");
}

#[test]
fn requests_that_a_server_would_not_let_through_are_the_tests_fault() {
    let model = Model::load(&PROBE, CONFIG).unwrap();
    let name = message(|| drop(model.request().input("Z", &[1], &[1])));
    assert_eq!(name, "the configuration has no input 'Z'");
    let shape = message(|| drop(model.request().input("X", &[1, 1], &[1])));
    assert_eq!(shape, "input: tensor 'X' has the shape [1, 1], configured is [-1]");
    assert!(message(|| drop(model.request().input("X", &[1], &[1u8]))).contains("configured is Int32"));
    assert!(message(|| drop(model.request().input("X", &[2], &[1]))).contains("number of values"));
}
