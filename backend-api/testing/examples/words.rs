//! Step 3: one answer for each word of TEXT, each after `delay_ms`, until nobody waits any more.
#![forbid(unsafe_code)]

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use trireme_sdk::{
    Error, InstanceContext, LoadModel, Model, ModelContext, Request, Responder, Response, Result, Stateless,
    Verdict,
};

struct Words {
    delay: Duration,
}

struct Instance {
    delay: Duration,
    running: Vec<JoinHandle<()>>,
}

impl LoadModel for Words {
    fn load(context: ModelContext) -> Result<Self> {
        if !context.config.is_decoupled() {
            return Err(Error::invalid("words needs model_transaction_policy { decoupled: true }"));
        }
        let delay = context.config.parameter("delay_ms")?.unwrap_or(0);
        Ok(Self { delay: Duration::from_millis(delay) })
    }
}

impl Model for Words {
    type Instance = Instance;

    fn create_instance(&self, _: InstanceContext) -> Result<Instance> {
        Ok(Instance { delay: self.delay, running: Vec::new() })
    }
}

impl trireme_sdk::Instance for Instance {
    /// Returns at once; the answers come from a thread for each request.
    fn execute(&mut self, batch: Vec<Request>) {
        self.running.retain(|thread| !thread.is_finished());
        for request in batch {
            let text = request.input("TEXT").and_then(|input| input.texts());
            match text {
                Err(error) => request.fail(error),
                Ok(texts) => {
                    // The inputs go back here; the right to answer stays.
                    let (responder, delay) = (request.into_responder(), self.delay);
                    self.running.push(thread::spawn(move || speak(responder, &texts, delay)));
                }
            }
        }
    }

    /// Before an instance ends it has let go of every request.
    fn drain(&mut self) {
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

fn speak(mut responder: Responder, texts: &[String], delay: Duration) {
    for word in texts.iter().flat_map(|text| text.split_whitespace()) {
        if !rest(&responder, delay) {
            return responder.fail(Error::cancelled("nobody waits any more"));
        }
        let verdict = match Response::new().bytes("WORD", &[1], &[word]) {
            Ok(response) => responder.send(response),
            Err(error) => return responder.fail(error),
        };
        match verdict {
            Verdict::Continue => {}
            // The reader is slow: wait until the next answer is welcome, or nobody waits any more.
            Verdict::Pause => wait(&mut responder),
            Verdict::Cancelled => return responder.fail(Error::cancelled("nobody waits any more")),
            Verdict::Closed => return,
        }
    }
    responder.close();
}

/// Sleeps; false if nobody waits any more. A long rest is taken in naps, so that a cancellation is heard.
fn rest(responder: &Responder, delay: Duration) -> bool {
    let mut left = delay;
    while !left.is_zero() && !responder.is_cancelled() {
        let nap = left.min(Duration::from_millis(10));
        thread::park_timeout(nap);
        left -= nap;
    }
    !responder.is_cancelled()
}

fn wait(responder: &mut Responder) {
    let (go, gone) = mpsc::channel::<()>();
    responder.on_writable(move || drop(go));
    // Ends when the callback, and with it the sender, is gone.
    let _ = gone.recv();
}

trireme_sdk::export_backend!(Stateless<Words>, name = "words");
