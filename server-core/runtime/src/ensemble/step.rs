//! One execution of a step: a request to another model whose answers come back to the run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use trireme_host::ResponseSink;
use trireme_protocol::{InferRequest, InputTensor, RequestedOutput};
use trireme_scheduling::ensemble::RunId;

use super::plan::Readers;
use super::run::{Event, Run};
use super::tensor::{Tensor, sequence_of};
use crate::journey::{Letter, StreamItem};
use crate::lineage::{Lineage, Outlet, Reader};

/// A step that is to be run.
pub(super) struct Waiting {
    pub(super) run: Arc<Run>,
    pub(super) id: RunId,
    pub(super) step: usize,
    pub(super) inputs: Vec<Option<Tensor>>,
}

thread_local! {
    /// Steps that are to be launched by who launches already on this thread.
    static LINE: RefCell<Option<VecDeque<Waiting>>> = const { RefCell::new(None) };
}

impl Waiting {
    /// Asks the model of the step.
    ///
    /// An answer may come at once, from a cache or a closed queue, and let the next one start: one after the other, so
    /// that the stack does not grow with those that wait.
    pub(super) fn launch(self) {
        let first = LINE.with_borrow_mut(|line| match line {
            Some(line) => {
                line.push_back(self);
                None
            }
            None => {
                *line = Some(VecDeque::new());
                Some(self)
            }
        });
        let mut next = first;
        while let Some(waiting) = next {
            waiting.launch_now();
            next = LINE.with_borrow_mut(|line| {
                let next = line.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *line = None;
                }
                next
            });
        }
    }

    fn launch_now(self) {
        let Self { run, id, step, inputs } = self;
        let plan = &run.ensemble.plan.steps[step];
        let model = Arc::clone(&run.members[step]);
        let set = inputs.iter().flatten().find_map(|tensor| tensor.sequence.clone());
        let sequence = set.unwrap_or_else(|| run.header.sequence.clone());
        let present = plan.inputs.iter().zip(inputs).filter_map(|(name, tensor)| Some((name, tensor?)));
        let inputs: Vec<_> = present.map(|(name, tensor)| tensor.into_input(name, &model)).collect();
        let has_batch = |input: &&InputTensor| {
            let at = model.table.input(&input.name);
            at.is_some_and(|at| model.table.inputs[at].has_batch(model.batches()))
        };
        let batch = inputs.iter().find(has_batch).and_then(|input| input.shape.first());
        let batch = batch.map_or(0, |size| u32::try_from(*size).unwrap_or(0));
        let outputs =
            plan.outputs.iter().map(|name| RequestedOutput { name: name.clone(), ..Default::default() });
        let request = InferRequest {
            model_name: plan.model.clone(),
            id: run.header.id.clone(),
            sequence: sequence.clone(),
            priority: run.header.priority,
            timeout_us: run.header.timeout_us,
            parameters: run.header.parameters.clone(),
            inputs,
            outputs: outputs.collect(),
            ..InferRequest::default()
        };
        let above = run.journey.lineage();
        let lineage = Lineage {
            deadline_ns: run.deadline_ns,
            depth: above.depth + 1,
            sums: run.journey.sums().cloned(),
            trace_parent: above.trace_parent.clone(),
            // An ensemble occupies no instance itself.
            ancestors: above.ancestors.clone(),
        };
        let done = AtomicBool::new(false);
        let reader = Arc::new(StepReader { run, id, step, batch, sequence, done });
        let outlet = Outlet::Reader(Arc::clone(&reader) as Arc<dyn Reader>);
        match model.submit(request, outlet, lineage) {
            Ok(child) => reader.run.launched(id, child, &reader.done),
            Err(error) => reader.finish(Event::Fail(id, error)),
        }
    }
}

/// Hands the answers of a step to its run.
struct StepReader {
    run: Arc<Run>,
    id: RunId,
    step: usize,
    /// 0 if the model does not batch.
    batch: u32,
    sequence: trireme_protocol::SequenceControl,
    done: AtomicBool,
}

impl StepReader {
    fn finish(&self, event: Event) {
        self.done.store(true, SeqCst);
        self.run.landed(self.id);
        let next = self.run.ensemble.leave(self.step);
        self.run.post(event);
        if let Some(next) = next {
            next.launch();
        }
    }
}

impl Reader for StepReader {
    fn letter(&self, letter: Letter) -> bool {
        let id = self.id;
        match letter {
            Err(error) => self.finish(Event::Fail(id, error)),
            Ok(StreamItem { response: None, is_final: true, .. }) => self.finish(Event::End(id)),
            Ok(StreamItem { response: None, is_final: false, .. }) => {}
            Ok(StreamItem { response: Some(mut response), is_final, .. }) => {
                let sequence = sequence_of(&response.parameters, &self.sequence);
                let names = &self.run.ensemble.plan.steps[self.step].outputs;
                let take = |name: &String| {
                    let at = response.outputs.iter().position(|output| output.name == *name)?;
                    Some(Tensor::of_output(response.outputs.swap_remove(at), self.batch, sequence.clone()))
                };
                let outputs = names.iter().map(take).collect();
                let event = Event::Answer { run: id, outputs, last: is_final };
                if is_final {
                    self.finish(event);
                } else {
                    self.run.post(event);
                    return self.run.wants_pause(id);
                }
            }
        }
        false
    }

    fn on_writable(&self, call: Box<dyn FnOnce() + Send>) {
        self.run.on_writable(self.id, call);
    }

    fn takes_devices(&self, name: &str) -> bool {
        let step = &self.run.ensemble.plan.steps[self.step];
        let Some(at) = step.outputs.iter().position(|output| output == name) else { return false };
        let Readers { steps, output } = &step.readers[at];
        let shown = output.as_ref().is_some_and(|output| self.run.journey.reads_device(output, 0));
        shown || steps.iter().any(|step| self.run.members[*step].takes_devices())
    }
}
