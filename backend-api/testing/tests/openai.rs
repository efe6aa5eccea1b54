//! Calls of OpenAI's API over the ABI: what the SDK and the host make of `openai/1`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use trireme_sdk::export::probe;
use trireme_sdk::{
    InstanceContext, LoadModel, ModelContext, OpenAiError, Request, Response, Result, Stateless, Verdict,
};
use trireme_testing::{Model, Probe};

/// Answers calls with what they say, and tensors with tensors.
struct Echo;

static PROBE: Probe = probe::<Stateless<Echo>>("echo\0", "0\0");
const CONFIG: &str = r#"{
    "input": [{ "name": "X", "data_type": "TYPE_INT32", "dims": [-1] }],
    "output": [{ "name": "Y", "data_type": "TYPE_INT32", "dims": [-1] }]
}"#;

impl LoadModel for Echo {
    fn load(_: ModelContext) -> Result<Self> {
        Ok(Self)
    }
}

impl trireme_sdk::Model for Echo {
    type Instance = Self;
    fn create_instance(&self, _: InstanceContext) -> Result<Self> {
        Ok(Self)
    }
    fn openai_endpoints(&self) -> &[&str] {
        &["chat/completions", "completions"]
    }
}

impl trireme_sdk::Instance for Echo {
    fn execute(&mut self, batch: Vec<Request>) {
        for mut request in batch {
            let Some(call) = request.openai() else {
                request.answer(|request| Response::new().forward("Y", request, &request.input("X")?));
                continue;
            };
            let (endpoint, body) = (call.endpoint.to_owned(), call.body.to_owned());
            match body.as_str() {
                "error" => {
                    let error = OpenAiError::invalid("n", "'n' is too large").with_code("too_large");
                    request.into_responder().fail_json(&error);
                }
                "chunks" => {
                    let responder = request.responder();
                    let verdicts = (0..4).map(|n| responder.send_json(&format!("[{n}]"))).collect::<Vec<_>>();
                    assert_eq!(verdicts[0], Verdict::Continue);
                    assert_eq!(verdicts[1..], [Verdict::Pause; 3]);
                    request.into_responder().close();
                }
                _ => request.into_responder().finish_json(&format!("{endpoint} {body}")),
            }
        }
    }
}

#[test]
fn a_call_reaches_the_model_and_its_object_comes_back() {
    let model = Model::load(&PROBE, CONFIG).unwrap();
    let answer = model.request().openai("chat/completions", "{}").send().answer();
    assert_eq!(answer.document, Some((200, "chat/completions {}".to_owned())));
    assert!(answer.is_final);
    let tensors = model.request().input("X", &[2], &[1, 2]).send().answer();
    assert_eq!(tensors.values::<i32>("Y"), [1, 2]);
    assert_eq!(tensors.document, None);
}

#[test]
fn chunks_come_one_by_one_and_a_slow_reader_pauses_the_model() {
    let model = Model::load(&PROBE, CONFIG).unwrap();
    let pending = model.request().capacity(2).openai("completions", "chunks").send();
    // The slowest reader: it begins when all has been sent.
    while pending.unread() < 4 {
        std::thread::yield_now();
    }
    let bodies: Vec<String> =
        pending.answers().into_iter().map(|answer| answer.document.unwrap().1).collect();
    assert_eq!(bodies, ["[0]", "[1]", "[2]", "[3]"]);
}

#[test]
fn an_error_is_openais_object_and_the_last_answer() {
    let model = Model::load(&PROBE, CONFIG).unwrap();
    let answer = model.request().openai("completions", "error").send().answer();
    let (status, body) = answer.document.unwrap();
    let expected = r#"{"error":{"message":"'n' is too large","type":"invalid_request_error","param":"n","code":"too_large"}}"#;
    assert_eq!((status, body.as_str()), (400, expected));
}
