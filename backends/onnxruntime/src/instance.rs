//! An instance: a session of its own, which runs a batch at a time.

use std::sync::Arc;

use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue, SessionOutputs};
use trireme_sdk::{Error, Instance, Request, Response, Result};

use crate::failure::{self, Log};
use crate::gather;
use crate::memory::Pool;
use crate::scatter::{self, Cut};
use crate::signature::{Joined, Layout};

/// A session and how requests go into it.
pub struct OnnxInstance {
    session: Session,
    run: RunOptions<NoSelectedOutputs>,
    /// The session's memory, if it is not ONNX Runtime's own.
    pool: Option<Arc<Pool>>,
    layout: Arc<Layout>,
    log: Log,
}

impl OnnxInstance {
    pub(crate) fn new(
        session: Session,
        run: RunOptions<NoSelectedOutputs>,
        pool: Option<Arc<Pool>>,
        layout: Arc<Layout>,
        log: Log,
    ) -> Self {
        Self { session, run, pool, layout, log }
    }

    /// Runs requests together and answers them, or gives them back.
    fn try_answer(&mut self, batch: Vec<Request>) -> std::result::Result<(), (Vec<Request>, Error)> {
        let Self { session, run, layout, .. } = self;
        let mut work = || answers(layout, &compute(session, run, layout, &batch)?, &batch);
        let made = match &self.pool {
            Some(pool) => pool.serve(work),
            None => work(),
        };
        match made {
            Ok(answers) => {
                for (mut request, answer) in batch.into_iter().zip(answers) {
                    request.responder().computed();
                    request.respond(answer);
                }
                Ok(())
            }
            Err(error) => Err((batch, error)),
        }
    }

    fn answer(&mut self, batch: Vec<Request>) {
        let mut failed = Vec::new();
        let mut whole = None;
        failure::divided(
            batch,
            &mut |part| self.try_answer(part),
            &mut |request, error| failed.push((request, error)),
            &mut |size, error| whole = Some((size, error.clone())),
        );
        if let Some((size, error)) = whole {
            self.log.divided(size, &error);
        }
        for (request, error) in failed {
            self.log.failed(&error);
            request.fail(error);
        }
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
            self.answer(part);
        }
    }
}

fn compute<'s>(
    session: &'s mut Session,
    run: &'s RunOptions<NoSelectedOutputs>,
    layout: &Layout,
    batch: &[Request],
) -> Result<SessionOutputs<'s>> {
    let mut inputs = Vec::with_capacity(layout.inputs.len());
    for input in &layout.inputs {
        let value: Option<SessionInputValue<'_>> = gather::input(input, batch, layout.batches)?;
        inputs.extend(value.map(|value| (input.tensor.name.as_str(), value)));
    }
    session.run_with_options(inputs, run).map_err(|error| failure::of_run(&error, layout, batch))
}

/// The answers, in the order of the batch.
fn answers(layout: &Layout, outputs: &SessionOutputs<'_>, batch: &[Request]) -> Result<Vec<Response>> {
    let rows: Vec<usize> = batch.iter().map(|request| rows(layout, request)).collect();
    let mut answers: Vec<Response> = batch.iter().map(|_| Response::new()).collect();
    for output in &layout.outputs {
        let tensor = &output.tensor;
        let wanted: Vec<bool> = batch.iter().map(|request| output.is_wanted(request)).collect();
        if !wanted.contains(&true) {
            continue;
        }
        let value = outputs
            .get(&tensor.name)
            .ok_or_else(|| Error::internal(format!("ONNX Runtime gave no output '{}'", tensor.name)))?;
        let cut = match &output.cut_like {
            Some(input) => Cut::Elements(
                batch
                    .iter()
                    .map(|request| Ok(request.input(input)?.element_count()))
                    .collect::<Result<_>>()?,
            ),
            None if layout.batches => Cut::Rows(&rows),
            None => Cut::Whole,
        };
        answers = scatter::output(output, value, &cut, &wanted, answers)?;
    }
    Ok(answers)
}

/// How many rows a request brings. One without rows has a batch size of 1 for the server, so its tensors are asked.
fn rows(layout: &Layout, request: &Request) -> usize {
    let joined = layout.inputs.iter().find(|input| input.joined == Joined::Rows);
    let first = joined.and_then(|input| request.input(&input.tensor.name).ok()?.shape().first().copied());
    first.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(request.batch_size() as usize)
}
