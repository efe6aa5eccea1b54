//! What is done wrong with a request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use trireme_sdk::{DataType, Error, Request, Response, Result, Verdict};

use crate::Hostile;

/// Requests that are never given back.
static KEPT: Mutex<Vec<Request>> = Mutex::new(Vec::new());

impl Hostile {
    #[expect(clippy::panic, reason = "the fault that is asked for")]
    #[expect(
        clippy::disallowed_methods,
        reason = "a backend that really waits, and one that ends the process"
    )]
    pub(crate) fn misbehave(&self, mut request: Request) {
        match self.fault.as_str() {
            "panic_execute" => panic!("asked to panic in execute"),
            "panic_on_empty" if request.inputs().any(|input| input.byte_size() == 0) => {
                panic!("asked to panic on a tensor without elements")
            }
            "abort" => std::process::abort(),
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            "drop" => drop(request),
            "late_drop" => drop(std::thread::spawn(move || drop(request))),
            "keep" => keep(request),
            "keep_after_deadline" if request.deadline_ns().is_some() => keep(request),
            "ignore_cancel" => drop(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                request.answer(echo);
            })),
            "ignore_pause" => drop(std::thread::spawn(move || ignore_pause(request))),
            "twice" => {
                if let (Ok(first), Ok(second)) = (echo(&request), echo(&request)) {
                    request.responder().send(first);
                    request.respond(second);
                }
            }
            "no_outputs" => request.respond(Response::new()),
            "wrong_shape" => {
                // Four elements are claimed: `raw` would refuse a type whose size it knows.
                request.answer(|_| Response::new().raw("OUTPUT0", DataType::Bytes, &[4, 1], vec![0; 3]));
            }
            "wrong_rows" => request.answer(|request| {
                let input = request.input("INPUT0")?;
                let (mut shape, mut data) = (input.shape().to_vec(), input.data()?.into_owned());
                let row = data.len() / shape[0].max(1) as usize;
                shape[0] += 1;
                data.resize(data.len() + row, 0);
                Response::new().raw("OUTPUT0", input.data_type(), &shape, data)
            }),
            "wrong_name" => request.answer(|_| Response::new().tensor("NOBODY", &[1, 1], vec![1.0f32])),
            "wrong_type" => request.answer(|request| {
                let shape = request.input("INPUT0")?.shape().to_vec();
                let count = shape.iter().product::<i64>() as usize;
                Response::new().tensor("OUTPUT0", &shape, vec![1i64; count])
            }),
            "first_piece" => request.answer(|request| {
                let input = request.input("INPUT0")?;
                let mut data = input.pieces()?.first().map(|piece| piece.to_vec()).unwrap_or_default();
                data.resize(input.byte_size(), 0);
                Response::new().raw("OUTPUT0", input.data_type(), input.shape(), data)
            }),
            "utf8_only" => {
                let texts = request.input("INPUT0").and_then(|input| input.texts());
                assert!(texts.is_ok(), "asked to panic on a text that is not UTF-8");
                request.answer(echo);
            }
            "second_instance" if self.instance > 0 => request.answer(|request| {
                let input = request.input("INPUT0")?;
                let data = input.data()?.iter().map(|byte| byte ^ 1).collect();
                Response::new().raw("OUTPUT0", input.data_type(), input.shape(), data)
            }),
            "fail" => request.fail(Error::internal("asked to fail")),
            "device_lost" => {
                self.host.device_lost(crate::LOST);
                request.fail(Error::unavailable(crate::LOST));
            }
            "bare_error" => request.fail(Error::invalid("")),
            "known_parameters_only" if !request.parameters().is_empty() => {
                request.fail(Error::invalid("asked to know no parameters"));
            }
            "tell_address" => {
                let host = self.host.clone();
                request.answer(|request| {
                    let input = request.input("INPUT0")?;
                    let address = input.pieces()?.first().map(|piece| piece.as_ptr());
                    host.info(format!("INPUT0 is at {address:?}"));
                    echo(request)
                });
            }
            _ => {
                self.leave_something();
                request.answer(echo);
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a thread that is left behind")]
    fn leave_something(&self) {
        match self.fault.as_str() {
            "leak_memory" => lose(16 << 10),
            "leak_thread" if self.requests.is_multiple_of(50) => {
                drop(std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600))));
            }
            "leak_file" if self.requests.is_multiple_of(10) => {
                Box::leak(Box::new(std::fs::File::open("/dev/null").ok()));
            }
            _ => {}
        }
    }
}

/// Memory that is written to, so that the process has it, and then forgotten.
pub(crate) fn lose(bytes: usize) {
    // Or the compiler would see that nobody reads it, and not even allocate.
    std::hint::black_box(Box::leak(vec![1u8; bytes].into_boxed_slice()));
}

fn keep(request: Request) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(request);
}

fn echo(request: &Request) -> Result<Response> {
    Response::new().forward("OUTPUT0", request, &request.input("INPUT0")?)
}

fn ignore_pause(mut request: Request) {
    for _ in 0..50 {
        let Ok(response) = echo(&request) else { break };
        if matches!(request.responder().send(response), Verdict::Cancelled | Verdict::Closed) {
            break;
        }
    }
    request.into_responder().close();
}

pub(crate) fn first_of_batch(batch: Vec<Request>) {
    let first =
        batch.first().and_then(|request| Some(request.input("INPUT0").ok()?.data().ok()?.into_owned()));
    for request in batch {
        request.answer(|request| {
            let input = request.input("INPUT0")?;
            let mut data = first.clone().unwrap_or_default();
            data.resize(input.byte_size(), 0);
            Response::new().raw("OUTPUT0", input.data_type(), input.shape(), data)
        });
    }
}

pub(crate) fn same_shapes_only(batch: Vec<Request>) {
    let shape = |request: &Request| request.input("INPUT0").map(|input| input.shape().to_vec()).ok();
    let same = batch.windows(2).all(|pair| shape(&pair[0]) == shape(&pair[1]));
    for request in batch {
        match same {
            true => request.answer(echo),
            false => request.fail(Error::unsupported("asked to take equal shapes only")),
        }
    }
}
