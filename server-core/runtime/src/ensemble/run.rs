//! One request of an ensemble: the pure state machine under a lock, with the requests to the models around it.
//!
//! Events come from the threads of the backends. Whoever brings one while nobody else is at it carries out what follows,
//! without the lock; who comes meanwhile leaves the event behind. So answers leave in the order in which they are made.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use trireme_host::{DeviceTensor, Output, Request, Response, ResponseSink, Verdict};
use trireme_scheduling::ensemble::{Action, Flow, RunId};

use super::step::Waiting;
use super::tensor::Tensor;
use super::{Ensemble, Header, in_ensemble};
use crate::error::ServeError;
use crate::journey::Journey;
use crate::lineage::Dependent;
use crate::served::Served;
use crate::statistics::lock;
use crate::threads::ThreadGuard;

/// Answers of a decoupled step that may be on their way before it is asked to pause.
const WINDOW: usize = 64;

type Call = Box<dyn FnOnce() + Send>;
type Actions = Vec<Action<Tensor, ServeError>>;

/// What happens to a request.
pub(super) enum Event {
    Answer { run: RunId, outputs: Vec<Option<Tensor>>, last: bool },
    End(RunId),
    Fail(RunId, ServeError),
    Cancel,
}

pub(super) struct Run {
    pub(super) journey: Arc<Journey>,
    pub(super) ensemble: Arc<Ensemble>,
    /// The models, by step.
    pub(super) members: Vec<Arc<Served>>,
    pub(super) header: Header,
    /// Nanoseconds of the monotonic clock; 0: none.
    pub(super) deadline_ns: u64,
    /// The numbers of the outputs that the client wants.
    wanted: Vec<usize>,
    state: Mutex<State>,
    _guard: Option<ThreadGuard>,
}

struct State {
    flow: Flow<Tensor, ServeError>,
    events: VecDeque<Event>,
    /// Somebody carries out what follows from the events.
    busy: bool,
    children: BTreeMap<RunId, Arc<Journey>>,
    /// Steps that wait until they may go on.
    paused: BTreeMap<RunId, Call>,
    /// The client reads slower than the steps answer.
    client_paused: bool,
}

impl Run {
    pub(super) fn start(
        ensemble: Arc<Ensemble>,
        journey: Arc<Journey>,
        members: Vec<Arc<Served>>,
        request: Box<Request>,
        header: Header,
        guard: Option<ThreadGuard>,
    ) {
        let table = &journey.model.table;
        let wanted: Vec<usize> =
            (0..table.outputs.len()).filter(|output| request.wanted.contains(*output)).collect();
        let batch = if table.batches() { request.batch_size } else { 0 };
        let mut inputs = vec![None; table.inputs.len()];
        for input in request.inputs {
            let index = usize::from(input.index);
            inputs[index] = Some(Tensor::of_input(input, table.inputs[index].datatype, batch));
        }
        let mut actions = Actions::new();
        let graph = Arc::clone(&ensemble.plan.graph);
        let flow = Flow::start(graph, wanted.clone(), inputs, WINDOW, &mut actions);
        let state = State {
            flow,
            events: VecDeque::new(),
            busy: true,
            children: BTreeMap::new(),
            paused: BTreeMap::new(),
            client_paused: false,
        };
        let run = Arc::new(Self {
            deadline_ns: request.deadline_ns,
            journey,
            ensemble,
            members,
            header,
            wanted,
            state: Mutex::new(state),
            _guard: guard,
        });
        let dependent: Arc<dyn Dependent> = run.clone();
        run.journey.adopt(&dependent);
        run.work(actions);
    }

    /// Something has happened.
    pub(super) fn post(self: &Arc<Self>, event: Event) {
        let mut state = lock(&self.state);
        state.events.push_back(event);
        if !std::mem::replace(&mut state.busy, true) {
            drop(state);
            self.work(Actions::new());
        }
    }

    fn work(self: &Arc<Self>, mut actions: Actions) {
        loop {
            for action in actions.drain(..) {
                self.carry_out(action);
            }
            let mut state = lock(&self.state);
            let Some(event) = state.events.pop_front() else {
                state.busy = false;
                return;
            };
            let flow = &mut state.flow;
            match event {
                Event::Answer { run, outputs, last } => flow.on_answer(run, outputs, last, &mut actions),
                Event::End(run) => flow.on_end(run, &mut actions),
                Event::Fail(run, error) => flow.on_fail(run, error, &mut actions),
                Event::Cancel => flow.cancel(cancelled(), &mut actions),
            }
        }
    }

    fn carry_out(self: &Arc<Self>, action: Action<Tensor, ServeError>) {
        match action {
            Action::Start { run, step, inputs } => {
                let waiting = Waiting { run: Arc::clone(self), id: run, step, inputs };
                if let Some(waiting) = self.ensemble.enter(waiting) {
                    waiting.launch();
                }
            }
            Action::Cancel(run) => self.cancel_step(run),
            Action::Resume(run) => {
                let mut state = lock(&self.state);
                let call = if state.client_paused { None } else { state.paused.remove(&run) };
                drop(state);
                call.into_iter().for_each(|call| call());
            }
            Action::Answer { outputs, last } => self.answer(outputs, last),
            Action::End => self.send(Response::default(), true),
            Action::Fail(error) => self.fail(error),
            Action::Deadlock => self.fail(ServeError::invalid(
                "unexpected deadlock, at least one output is not set while no more ensemble steps can be made",
            )),
        }
    }

    fn answer(self: &Arc<Self>, outputs: Vec<Option<Tensor>>, last: bool) {
        let table = &self.journey.model.table;
        let present = self.wanted.iter().zip(outputs).filter_map(|(output, tensor)| Some((*output, tensor?)));
        let outputs = present.map(|(output, tensor)| {
            self.to_reader(tensor.into_output(&table.outputs[output], table.batches()))
        });
        let parameters = self.header.told();
        match outputs.collect() {
            Ok(outputs) => self.send(Response { outputs, parameters, ..Response::default() }, last),
            Err(error) => {
                self.fail(error);
                if !last {
                    self.post(Event::Cancel);
                }
            }
        }
    }

    /// What lies on a device is copied, unless who reads the answer reads that.
    fn to_reader(&self, mut output: Output) -> Result<Output, ServeError> {
        let there = |tensor: &mut DeviceTensor| !self.journey.reads_device(&output.name, tensor.device());
        if let Some(tensor) = output.device.take_if(there) {
            output.data = tensor.to_host()?;
        }
        Ok(output)
    }

    fn send(self: &Arc<Self>, response: Response, last: bool) {
        match self.journey.send(response, last) {
            Verdict::Pause => {
                lock(&self.state).client_paused = true;
                let run = Arc::downgrade(self);
                self.journey.on_writable(Box::new(move || {
                    if let Some(run) = run.upgrade() {
                        run.client_writable();
                    }
                }));
            }
            // The answer could not be sent, so that no other one is of any use.
            Verdict::Closed if !last => self.post(Event::Cancel),
            Verdict::Closed | Verdict::Continue | Verdict::Cancelled => {}
        }
    }

    fn fail(self: &Arc<Self>, error: ServeError) {
        let error = in_ensemble(self.journey.model.name(), error);
        self.send(Response::error(error.into()), true);
    }

    /// A step is with its model.
    pub(super) fn launched(&self, id: RunId, child: Arc<Journey>, done: &AtomicBool) {
        let mut state = lock(&self.state);
        // Its last answer may have come already.
        if done.load(SeqCst) {
            return;
        }
        let late = !state.flow.is_on();
        state.children.insert(id, Arc::clone(&child));
        drop(state);
        if late {
            child.cancel();
        }
    }

    /// The last answer of a step has come.
    pub(super) fn landed(&self, id: RunId) {
        let mut state = lock(&self.state);
        let gone = (state.children.remove(&id), state.paused.remove(&id));
        drop(state);
        drop(gone);
    }

    fn cancel_step(self: &Arc<Self>, id: RunId) {
        for waiting in self.ensemble.withdraw(|waiting| waiting.id == id && Arc::ptr_eq(&waiting.run, self)) {
            self.post(Event::Fail(waiting.id, cancelled()));
        }
        let mut state = lock(&self.state);
        let (child, call) = (state.children.get(&id).cloned(), state.paused.remove(&id));
        drop(state);
        if let Some(child) = child {
            child.cancel();
        }
        // A step that waits must go on to find itself cancelled.
        call.into_iter().for_each(|call| call());
    }

    pub(super) fn wants_pause(&self, id: RunId) -> bool {
        let mut state = lock(&self.state);
        state.flow.wants_pause(id) || state.client_paused
    }

    pub(super) fn on_writable(&self, id: RunId, call: Call) {
        let mut state = lock(&self.state);
        let wait = state.flow.is_on() && (state.flow.wants_pause(id) || state.client_paused);
        let call = if wait { state.paused.insert(id, call) } else { Some(call) };
        drop(state);
        call.into_iter().for_each(|call| call());
    }

    fn client_writable(&self) {
        let mut state = lock(&self.state);
        state.client_paused = false;
        let State { paused, flow, .. } = &mut *state;
        let ready: Vec<RunId> = paused.keys().copied().filter(|id| !flow.wants_pause(*id)).collect();
        let calls: Vec<Call> = ready.iter().filter_map(|id| paused.remove(id)).collect();
        drop(state);
        calls.into_iter().for_each(|call| call());
    }
}

impl Dependent for Run {
    fn cancel(self: Arc<Self>) {
        self.post(Event::Cancel);
    }
}

fn cancelled() -> ServeError {
    ServeError::new(trireme_protocol::StatusCode::Cancelled, "the request was cancelled")
}
