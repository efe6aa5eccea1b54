//! An instance: a session of its own, which runs a batch at a time.

use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use trireme_sdk::{Error, Instance, Request, Response, Result};

use crate::signature::Layout;
use crate::{gather, scatter};

/// A session and how requests go into it.
pub struct OnnxInstance {
    session: Session,
    layout: Arc<Layout>,
}

impl OnnxInstance {
    pub(crate) fn new(session: Session, layout: Arc<Layout>) -> Self {
        Self { session, layout }
    }

    /// The answers, in the order of the batch.
    fn run(&mut self, batch: &[Request]) -> Result<Vec<Response>> {
        let layout = Arc::clone(&self.layout);
        let mut inputs = Vec::with_capacity(layout.inputs.len());
        for tensor in &layout.inputs {
            let value: SessionInputValue<'_> = gather::input(tensor, batch, layout.batches)?;
            inputs.push((tensor.name.as_str(), value));
        }
        let outputs = self.session.run(inputs).map_err(|error| failed(&error))?;
        let rows: Vec<usize> = batch.iter().map(|request| request.batch_size() as usize).collect();
        let mut answers: Vec<Response> = batch.iter().map(|_| Response::new()).collect();
        for (number, tensor) in layout.outputs.iter().enumerate() {
            let wanted: Vec<bool> = batch.iter().map(|request| request.wants_output(number)).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let value = outputs
                .get(&tensor.name)
                .ok_or_else(|| Error::internal(format!("ONNX Runtime gave no output '{}'", tensor.name)))?;
            answers = scatter::output(tensor, value, layout.batches.then_some(&rows[..]), &wanted, answers)?;
        }
        Ok(answers)
    }
}

impl Instance for OnnxInstance {
    fn execute(&mut self, batch: Vec<Request>) {
        let (cancelled, mut batch): (Vec<Request>, _) = batch.into_iter().partition(Request::is_cancelled);
        cancelled.into_iter().for_each(|request| request.fail(Error::cancelled("the request was cancelled")));
        batch.iter_mut().for_each(|request| request.responder().computing());
        // Without a batch dimension there is one request at a time.
        let size = if self.layout.batches { batch.len().max(1) } else { 1 };
        while !batch.is_empty() {
            let part: Vec<Request> = batch.drain(..size.min(batch.len())).collect();
            match self.run(&part) {
                Ok(answers) => {
                    for (mut request, answer) in part.into_iter().zip(answers) {
                        request.responder().computed();
                        request.respond(answer);
                    }
                }
                Err(error) => part.into_iter().for_each(|request| request.fail(error.clone())),
            }
        }
    }
}

fn failed(error: &ort::Error) -> Error {
    let message = format!("ONNX Runtime: {error}");
    match error.code() {
        ort::ErrorCode::InvalidArgument => Error::invalid(message),
        ort::ErrorCode::NotImplemented => Error::unsupported(message),
        _ => Error::internal(message),
    }
}
