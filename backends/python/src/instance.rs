//! An instance: batches go to its process, which answers in its own time.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use serde_json::json;
use trireme_sdk::{Error, Input, InstanceContext, InstanceKind, Request, Responder, Result};

use crate::calls::as_json;
use crate::outgoing::{Outgoing, Put};
use crate::plan::Plan;
use crate::supervisor::{self, Shared};
use crate::wire::to;

/// In the place of a list of outputs: all of them.
const ALL_OUTPUTS: u16 = u16::MAX;

/// An instance, whose process answers.
pub struct Instance {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
    outputs: usize,
    now: trireme_sdk::Host,
    /// Whether inputs that are on its GPU go to the process as they are.
    keeps_gpu: bool,
    batch: u64,
    request: u64,
}

impl Instance {
    /// Starts its process and waits until the model is initialized.
    pub(crate) fn new(plan: &Arc<Plan>, outputs: usize, context: &InstanceContext) -> Result<Self> {
        let kind = match context.kind {
            InstanceKind::GPU => "GPU",
            InstanceKind::MODEL => "MODEL",
            _ => "CPU",
        };
        let own = json!({ "instance": context.name, "kind": kind, "device": context.device });
        let label = format!("{} {}", plan.label(), context.name);
        let shared = Shared::new(Arc::clone(plan), label, own);
        let (started, result) = mpsc::channel();
        let supervised = Arc::clone(&shared);
        let run = move || {
            supervisor::run(&supervised, |first| {
                let _ = started.send(first);
            });
        };
        let supervisor = std::thread::Builder::new()
            .name("python".to_owned())
            .spawn(run)
            .map_err(|error| Error::internal(format!("no thread for the process of an instance: {error}")))?;
        let now = plan.host.clone();
        let keeps_gpu = plan.keeps_gpu;
        let instance =
            Self { shared, supervisor: Some(supervisor), outputs, now, keeps_gpu, batch: 0, request: 0 };
        let gone = || Err(Error::internal("the thread of the instance's process has ended"));
        result.recv().unwrap_or_else(|_| gone()).map(|()| instance)
    }

    /// Adds a request to a batch.
    fn describe(&self, frame: &mut Outgoing<'_>, number: u64, request: &Request) -> Result<()> {
        let parameters = match request.parameters() {
            given if given.is_empty() => String::new(),
            given => {
                let fields = given.iter().map(|(name, value)| (name.clone(), as_json(value))).collect();
                serde_json::Value::Object(fields).to_string()
            }
        };
        let correlation_text = request.correlation_text().unwrap_or_default();
        let timeout =
            request.deadline_ns().map_or(0, |deadline| deadline.saturating_sub(self.now.now_ns()) / 1000);
        let length = |text: &str| {
            u32::try_from(text.len())
                .map_err(|_| Error::invalid("a text of the request is longer than 4 GiB"))
        };
        let text_length = u16::try_from(correlation_text.len())
            .map_err(|_| Error::invalid("the correlation id is longer than 64 KiB"))?;
        let wanted: Vec<u16> = (0..self.outputs)
            .filter(|output| request.wants_output(*output))
            .map(|output| output as u16)
            .collect();
        let all = wanted.len() == self.outputs;
        frame.meta.put(number.to_le_bytes());
        frame.meta.put(request.correlation_id().unwrap_or(0).to_le_bytes());
        frame.meta.put(timeout.to_le_bytes());
        frame.meta.put(0u32.to_le_bytes());
        frame.meta.put(length(&parameters)?.to_le_bytes());
        frame.meta.put(length(request.id())?.to_le_bytes());
        frame.meta.put(text_length.to_le_bytes());
        frame.meta.put(if all { ALL_OUTPUTS } else { wanted.len() as u16 }.to_le_bytes());
        frame.meta.put((request.input_count() as u16).to_le_bytes());
        for text in [request.id(), correlation_text, &parameters] {
            frame.meta.extend_from_slice(text.as_bytes());
        }
        if !all {
            wanted.iter().for_each(|output| frame.meta.put(output.to_le_bytes()));
        }
        for input in request.inputs() {
            self.describe_input(frame, &input)?;
        }
        Ok(())
    }

    fn describe_input(&self, frame: &mut Outgoing<'_>, input: &Input<'_>) -> Result<()> {
        let (name, data_type, shape) = (input.name(), input.data_type(), input.shape());
        let Some(view) = input.on_device()? else {
            return frame.tensor(name, data_type, shape, &input.pieces()?);
        };
        if self.keeps_gpu {
            let memory = input.gather_on(view.device)?;
            // Memory of a kind that no other process can open is copied, as without the parameter.
            if let Ok(exported) = self.now.export(&memory) {
                let ready = memory.on_device().map_or(0, |view| view.ready_event);
                if ready != 0 {
                    self.now.wait_for(view.device, ready)?;
                }
                return frame.on_gpu((name, data_type, shape), (memory, &exported));
            }
        }
        frame.tensor(name, data_type, shape, &[&input.data()?])
    }
}

impl trireme_sdk::Instance for Instance {
    fn execute(&mut self, batch: Vec<Request>) {
        let sender = match self.shared.sender() {
            Ok(sender) => sender,
            Err(error) => return batch.into_iter().for_each(|request| request.fail(error.clone())),
        };
        self.batch += 1;
        let mut frame = Outgoing::new(&sender);
        frame.meta.put(self.batch.to_le_bytes());
        let count_at = frame.meta.len();
        frame.meta.put(0u32.to_le_bytes());
        let mut sent: Vec<(u64, Responder)> = Vec::with_capacity(batch.len());
        for request in batch {
            self.request += 1;
            let mark = frame.mark();
            match self.describe(&mut frame, self.request, &request) {
                Ok(()) => {
                    let mut responder = request.into_responder();
                    responder.computing();
                    sent.push((self.request, responder));
                }
                Err(error) => {
                    frame.rewind(mark);
                    request.fail(error);
                }
            }
        }
        if sent.is_empty() {
            return;
        }
        frame.meta[count_at..count_at + 4].copy_from_slice(&(sent.len() as u32).to_le_bytes());
        let frame = match frame.frame(to::EXECUTE) {
            Ok(frame) => frame,
            Err(error) => return sent.into_iter().for_each(|(_, responder)| responder.fail(error.clone())),
        };
        match self.shared.requests.add(sender.generation, sent) {
            Ok(()) => {
                sender.send(frame);
                self.shared.wait_done(self.batch, sender.generation);
            }
            Err(sent) => {
                let error = Error::unavailable("the process of the model has just ended; try again");
                sent.into_iter().for_each(|(_, responder)| responder.fail(error.clone()));
            }
        }
    }

    fn drain(&mut self) {
        self.shared.requests.drain();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}
