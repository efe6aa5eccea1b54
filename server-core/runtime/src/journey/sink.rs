//! The answers of the backend as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use trireme_host::abi::Stage;
use trireme_host::{CallReader, Message, Response, ResponseSink, Status, Verdict};
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use super::{Journey, Letter, StreamItem, is_failure};
use crate::error::ServeError;
use crate::execution::Execution;
use crate::statistics::lock;

impl ResponseSink for Journey {
    fn send(&self, response: Response, is_final: bool) -> Verdict {
        let now = now_ns();
        // A document may come in parts, whatever the model's tensors do.
        let decoupled = self.model.is_decoupled() || self.document;
        let mut progress = lock(&self.progress);
        if progress.done {
            return Verdict::Closed;
        }
        // A response without outputs and without an error carries only the FINAL flag.
        let empty = response.outputs.is_empty()
            && response.error.is_none()
            && response.document.is_none()
            && response.parameters.is_empty();
        let failed = is_failure(&response);
        let response = (!empty).then_some(response);
        if decoupled {
            self.count_response(&mut progress, response.as_ref(), now);
        }
        progress.responses += u64::from(response.is_some());
        // An error is the last word, whatever the flag says.
        let is_final = is_final || failed;
        if !is_final {
            let Some(response) = response else { return self.verdict(false) };
            if !decoupled {
                let earlier = progress.held.replace(response);
                drop(progress);
                // Its memory goes back to the backend, so without the lock.
                drop(earlier);
                return self.verdict(false);
            }
            drop(progress);
            let converted = if self.is_full() {
                Err(ServeError::unavailable(
                    "the client reads too slowly, and the backend sends on although it was asked to pause",
                ))
            } else {
                self.item(response, false)
            };
            return match converted {
                Ok(item) => self.verdict(self.send_letter(Ok(item))),
                Err(error) => {
                    let mut progress = lock(&self.progress);
                    progress.done = true;
                    let execution = progress.execution.take();
                    drop(progress);
                    self.end(Err(error), execution, now);
                    Verdict::Closed
                }
            };
        }
        progress.done = true;
        let (held, count) = (progress.held.take(), progress.responses);
        let execution = progress.execution.take();
        drop(progress);
        // Without the lock: what is not used of the response goes back to the backend.
        let response = response.or(held);
        let letter =
            if decoupled { self.finish_decoupled(response) } else { self.finish_single(count, response) };
        self.end(letter, execution, now);
        self.verdict(false)
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        self.outlet.on_writable(call);
    }

    fn call(self: Arc<Self>, call: Message, reader: CallReader) -> Result<(), Status> {
        crate::bls::call(&self, call, reader).map_err(Status::from)
    }

    fn reads_device(&self, name: &str, _device: i32) -> bool {
        !self.model.reads_values() && (self.outlet.takes_devices(name) || !self.is_wanted(name))
    }

    fn cancelled(&self) -> &AtomicU32 {
        &self.cancelled
    }

    fn mark(&self, stage: Stage, time_ns: u64) {
        let time_ns = if time_ns == 0 { now_ns() } else { time_ns };
        if let Some(execution) = &lock(&self.progress).execution {
            execution.mark(stage, time_ns);
        }
    }
}

impl Journey {
    /// The last answer of a request that an instance had: counts it, gives the room back, then lets the answer leave.
    fn end(&self, letter: Letter, execution: Option<Arc<Execution>>, now: u64) {
        if execution.is_some() {
            self.model.metrics.running_request_count.fetch_sub(1, Relaxed);
        }
        let failed = letter.as_ref().map_or(true, StreamItem::is_failure);
        let times = match &execution {
            Some(execution) => execution.request_done(self, self.batch_size, now),
            None => self.steps_done(!failed, now),
        };
        match &letter {
            Ok(_) if !failed => self.count_success(&times),
            _ if self.is_cancelled() => self.count_failure(FailureReason::Canceled),
            Err(error) if error.status == trireme_protocol::StatusCode::Cancelled => {
                self.count_failure(FailureReason::Canceled);
            }
            Err(_) if self.sums.is_some() => {
                // Dashboards know it so: the failure of a step counts for the ensemble too.
                self.model.metrics.count_failure(FailureReason::Other);
                self.count_failure(FailureReason::Other);
            }
            _ => self.count_failure(FailureReason::Backend),
        }
        self.send_letter(letter);
    }

    /// Whether anybody reads output `name`.
    fn is_wanted(&self, name: &str) -> bool {
        let (Some(chosen), Some(index)) = (&self.outputs.chosen, self.model.table.output(name)) else {
            return true;
        };
        chosen.iter().any(|(wanted, _)| *wanted == index)
    }

    fn verdict(&self, paused: bool) -> Verdict {
        if self.is_cancelled() {
            Verdict::Cancelled
        } else if paused {
            Verdict::Pause
        } else {
            Verdict::Continue
        }
    }
}
