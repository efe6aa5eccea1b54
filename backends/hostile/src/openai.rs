//! Calls of OpenAI's API, answered well and badly. The body's `ask` says how:
//! `echo` (what came), `chunks` (`count` of them; 0: without end, whoever reads), `lines` (an object over two lines),
//! `slow` (a first chunk after all patience), `error`, `device_lost` (an error, after it has told the server),
//! `late_error` (after a chunk), `two` (two answers to a call that wants one), `tensor`, `status` (an impossible one),
//! `wait` (until the client is gone), all else: nothing.

use std::time::Duration;

use serde_json::{Value, json};
use trireme_sdk::{Host, OpenAiError, Request, Response, Verdict};

#[expect(clippy::disallowed_methods, reason = "a backend that really waits")]
pub(crate) fn answer(mut request: Request, host: &Host) {
    let Some((endpoint, body)) =
        request.openai().map(|call| (call.endpoint.to_owned(), serde_json::from_str::<Value>(call.body)))
    else {
        return request.fail(trireme_sdk::Error::invalid("only calls of OpenAI's API are answered"));
    };
    let body = body.unwrap_or_default();
    let ask = body.get("ask").and_then(Value::as_str).unwrap_or_default();
    let count = body.get("count").and_then(Value::as_u64).unwrap_or(3);
    match ask {
        "echo" => {
            let echo = json!({ "endpoint": endpoint, "id": request.id(), "body": body });
            request.into_responder().finish_json(&echo.to_string());
        }
        "chunks" => {
            std::thread::spawn(move || {
                let responder = request.responder();
                for number in 0.. {
                    let verdict = responder.send_json(&json!({ "number": number }).to_string());
                    if number + 1 == count || matches!(verdict, Verdict::Cancelled | Verdict::Closed) {
                        break;
                    }
                }
                request.into_responder().close();
            });
        }
        "lines" => request.into_responder().finish_json("{\n  \"number\": 1\n}"),
        "slow" => {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(count));
                request.into_responder().finish_json("{}");
            });
        }
        "error" => request.into_responder().fail_json(&error()),
        "device_lost" => {
            host.device_lost(crate::LOST);
            request.into_responder().fail_json(&OpenAiError { status: 503, ..error() });
        }
        "late_error" => {
            request.responder().send_json("{}");
            request.into_responder().fail_json(&error());
        }
        "two" => {
            request.responder().send_json("{}");
            request.into_responder().finish_json("{}");
        }
        "tensor" => request.answer(|_| Response::new().tensor("OUTPUT0", &[1, 1], vec![1.0f32])),
        "status" => request.into_responder().fail_json(&OpenAiError { status: 1000, ..error() }),
        "wait" => {
            std::thread::spawn(move || {
                while !request.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        _ => drop(request),
    }
}

fn error() -> OpenAiError {
    OpenAiError::invalid("messages[0].role", "'messages[0].role' is unknown").with_code("unknown_role")
}
