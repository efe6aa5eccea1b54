//! A decoupled model: one answer for each element of IN, each after its DELAY. If the model is not decoupled, IN has one
//! element.
//!
//! Tensors: IN INT32 \[n\], DELAY UINT32 \[n\] in milliseconds, WAIT UINT32 \[1\] in milliseconds → OUT INT32 \[1\], IDX
//! UINT32 \[1\]. `execute` returns after WAIT; the answers come from threads of their own.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "the delays that are asked for")]

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use trireme_sdk::{
    Error, InstanceContext, LoadModel, Model, ModelContext, Request, Responder, Response, Result, Stateless,
    Verdict,
};

/// How often a long delay looks whether anybody still waits.
const TICK: Duration = Duration::from_millis(10);

struct Repeat {
    decoupled: bool,
}

struct Instance {
    decoupled: bool,
    running: Vec<JoinHandle<()>>,
}

impl LoadModel for Repeat {
    fn load(context: ModelContext) -> Result<Self> {
        Ok(Self { decoupled: context.config.is_decoupled() })
    }
}

impl Model for Repeat {
    type Instance = Instance;
    fn create_instance(&self, _: InstanceContext) -> Result<Instance> {
        Ok(Instance { decoupled: self.decoupled, running: Vec::new() })
    }
}

impl trireme_sdk::Instance for Instance {
    fn execute(&mut self, batch: Vec<Request>) {
        self.running.retain(|thread| !thread.is_finished());
        for request in batch {
            match plan(&request, self.decoupled) {
                Err(error) => request.fail(error),
                Ok((steps, wait)) => {
                    let responder = request.into_responder();
                    let answer = move || answer(responder, &steps);
                    match thread::Builder::new().name("repeat".to_owned()).spawn(answer) {
                        Ok(thread) => self.running.push(thread),
                        // The responder went with the closure, so the server has answered already.
                        Err(_) => continue,
                    }
                    thread::sleep(wait);
                }
            }
        }
    }

    fn drain(&mut self) {
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

type Steps = Vec<(i32, Duration)>;

fn plan(request: &Request, decoupled: bool) -> Result<(Steps, Duration)> {
    let milliseconds = |ms: u32| Duration::from_millis(ms.into());
    let values = request.input("IN")?.values::<i32>()?.into_owned();
    let delays = request.input("DELAY")?.values::<u32>()?.into_owned();
    if values.len() != delays.len() {
        return Err(Error::invalid(format!(
            "expected IN and DELAY shape to match, got [{}] and [{}]",
            values.len(),
            delays.len()
        )));
    }
    if !decoupled && values.len() != 1 {
        let message =
            format!("a model that is not decoupled gives one answer, but IN has {} elements", values.len());
        return Err(Error::invalid(message));
    }
    let wait = request.optional_input("WAIT").map(|input| input.value::<u32>()).transpose()?.unwrap_or(0);
    Ok((values.into_iter().zip(delays.into_iter().map(milliseconds)).collect(), milliseconds(wait)))
}

fn answer(mut responder: Responder, steps: &[(i32, Duration)]) {
    for (index, (value, delay)) in (0u32..).zip(steps) {
        if !rest(&responder, *delay) {
            return responder.fail(Error::cancelled("the client does not wait any more"));
        }
        let response = Response::new()
            .tensor("OUT", &[1], vec![*value])
            .and_then(|response| response.tensor("IDX", &[1], vec![index]));
        match response.map(|response| responder.send(response)) {
            Ok(Verdict::Continue) => {}
            Ok(Verdict::Pause) => {
                let (go, gone) = mpsc::channel();
                responder.on_writable(move || drop(go));
                // Ends when the callback, and with it the sender, is gone.
                let _: std::result::Result<(), _> = gone.recv();
            }
            Ok(Verdict::Cancelled) => {
                return responder.fail(Error::cancelled("the client does not wait any more"));
            }
            Ok(Verdict::Closed) => return,
            Err(error) => return responder.fail(error),
        }
    }
    responder.close();
}

/// Sleeps; false if nobody waits any more.
fn rest(responder: &Responder, delay: Duration) -> bool {
    let mut left = delay;
    while !left.is_zero() && !responder.is_cancelled() {
        let nap = left.min(TICK);
        thread::sleep(nap);
        left -= nap;
    }
    !responder.is_cancelled()
}

trireme_sdk::export_backend!(Stateless<Repeat>, name = "repeat");
