use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;

use super::frame::{Frame, Slot};
use super::graph::{Graph, REQUEST};

/// One execution of a step. The number is used again after the run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub usize);

/// Readers in frames inside: how many there will be is not known before the frame is over.
const KEPT: usize = usize::MAX;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<V, E> {
    /// Run a step; `inputs` are in the order of [`GraphStep::inputs`](super::GraphStep::inputs), absent ones empty.
    Start {
        /// The name of the execution.
        run: RunId,
        /// The number of the step.
        step: usize,
        /// Its tensors.
        inputs: Vec<Option<V>>,
    },
    /// Tell a run that nobody waits for it. It is still to report its end.
    Cancel(RunId),
    /// A run that was asked to pause may go on.
    Resume(RunId),
    /// Answer the request; `outputs` are in the order in which they were wanted.
    Answer {
        /// The tensors; a step may have left one out.
        outputs: Vec<Option<V>>,
        /// Nothing follows.
        last: bool,
    },
    /// The last answer is out; nothing follows.
    End,
    /// The request has failed, and no step runs any more; nothing follows.
    Fail(E),
    /// Nothing runs and there is nothing to answer with; nothing follows.
    Deadlock,
}

#[derive(Debug)]
struct Run<V> {
    step: usize,
    frame: usize,
    /// No further answer comes of it.
    closing: bool,
    /// Its end is reported.
    ended: bool,
    /// Frames of its answers that are not over.
    live: usize,
    paused: bool,
    /// The number of the next answer to come in, and of the next one to go on to the client.
    next: u64,
    turn: u64,
    /// Answers that are ready before their turn.
    held: BTreeMap<u64, Option<Vec<Option<V>>>>,
}

#[derive(Debug)]
enum Course<E> {
    On,
    /// Waits for the running steps to end.
    Failing(E),
    Over,
}

/// One request on its way through a [`Graph`]. `V` is a tensor, `E` why a step failed.
///
/// Report what happens, carry out the [`Action`]s in their order. After each [`Action::Start`] come any number of
/// answers of that run and exactly one end: a `last` answer, [`Flow::on_end`] or [`Flow::on_fail`].
#[derive(Debug)]
pub struct Flow<V, E> {
    graph: Arc<Graph>,
    needed: Vec<bool>,
    wanted: Vec<usize>,
    answer_stream: usize,
    /// How often each tensor is read in its own frame; [`KEPT`] if it is read from inside.
    uses: Vec<usize>,
    frames: Slab<Frame<V>>,
    runs: Slab<Run<V>>,
    running: usize,
    /// How many answers of a run may be on their way before it is asked to pause.
    window: usize,
    course: Course<E>,
}

impl<V: Clone, E> Flow<V, E> {
    /// A request for the outputs numbered `wanted`, with `inputs` in the order of the graph's. At most `window` answers
    /// of a decoupled step are on their way before it is asked to pause.
    pub fn start(
        graph: Arc<Graph>,
        wanted: Vec<usize>,
        inputs: Vec<Option<V>>,
        window: usize,
        actions: &mut Vec<Action<V, E>>,
    ) -> Self {
        let needed = graph.needed(&wanted);
        // `Graph::new` has seen that all outputs together have one.
        let answer_stream = graph.answer_stream(&wanted).unwrap_or(REQUEST);
        let uses = uses(&graph, &needed, &wanted, answer_stream);
        let root = Frame::new(&graph, REQUEST, &needed, answer_stream == REQUEST);
        let mut flow = Self {
            needed,
            uses,
            wanted,
            answer_stream,
            frames: Slab::new(),
            runs: Slab::new(),
            running: 0,
            window: window.max(1),
            course: Course::On,
            graph,
        };
        let root = flow.frames.insert(root);
        for (number, value) in inputs.into_iter().enumerate() {
            flow.put(root, flow.graph.inputs()[number], value);
        }
        flow.advance(root, actions);
        flow.release(root, actions);
        flow.settle(actions);
        flow
    }

    /// A run has answered with `outputs`, in the order of [`GraphStep::outputs`](super::GraphStep::outputs).
    pub fn on_answer(
        &mut self,
        run: RunId,
        outputs: Vec<Option<V>>,
        last: bool,
        actions: &mut Vec<Action<V, E>>,
    ) {
        if matches!(self.course, Course::On) {
            let frame = self.frame_for_answer(run);
            let step = self.runs[run.0].step;
            for (number, value) in outputs.into_iter().enumerate() {
                self.put(frame, self.graph.steps()[step].outputs[number], value);
            }
            // A run that has ended does not hold back what follows from its last answer.
            self.runs[run.0].closing = last;
            self.advance(frame, actions);
            self.release(frame, actions);
        }
        if last {
            self.end(run, actions);
        }
        self.settle(actions);
    }

    /// A run has ended without a further answer.
    pub fn on_end(&mut self, run: RunId, actions: &mut Vec<Action<V, E>>) {
        self.end(run, actions);
        self.settle(actions);
    }

    /// A run has ended with an error. The first one decides; the other runs are cancelled.
    pub fn on_fail(&mut self, run: RunId, error: E, actions: &mut Vec<Action<V, E>>) {
        self.runs[run.0].closing = true;
        self.give_up(error, actions);
        self.end(run, actions);
        self.settle(actions);
    }

    /// Nobody waits for the request any more.
    pub fn cancel(&mut self, error: E, actions: &mut Vec<Action<V, E>>) {
        self.give_up(error, actions);
        self.settle(actions);
    }

    /// Whether a run should wait before its next answer; [`Action::Resume`] ends the wait.
    pub fn wants_pause(&mut self, run: RunId) -> bool {
        let Some(state) = self.runs.get_mut(run.0) else { return false };
        state.paused |= !state.closing && state.live >= self.window && matches!(self.course, Course::On);
        state.paused
    }

    /// Whether it goes on: it has neither failed nor ended.
    pub fn is_on(&self) -> bool {
        matches!(self.course, Course::On)
    }

    /// Whether the last action was given.
    pub fn is_over(&self) -> bool {
        matches!(self.course, Course::Over)
    }

    /// Runs that have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Frames that are still of use; none in the end of a request that did not fail.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Where the tensors of an answer go: into the frame of the run, or into a new one inside it.
    fn frame_for_answer(&mut self, run: RunId) -> usize {
        let state = &mut self.runs[run.0];
        if !self.graph.steps()[state.step].decoupled {
            return state.frame;
        }
        let stream = self.graph.answers_in(state.step);
        let mut frame = Frame::new(&self.graph, stream, &self.needed, stream == self.answer_stream);
        (frame.parent, frame.origin) = (Some(state.frame), Some((run.0, state.next)));
        state.next += 1;
        state.live += 1;
        let parent = state.frame;
        let frame = self.frames.insert(frame);
        self.frames[parent].children.push(frame);
        frame
    }

    /// Starts what can start in a frame and in those inside it, and answers what can be answered.
    fn advance(&mut self, frame: usize, actions: &mut Vec<Action<V, E>>) {
        let waiting = std::mem::take(&mut self.frames[frame].waiting);
        let (ready, waiting): (Vec<usize>, Vec<usize>) =
            waiting.into_iter().partition(|step| self.all_known(frame, &self.graph.steps()[*step].inputs));
        self.frames[frame].waiting = waiting;
        for step in ready {
            let graph = Arc::clone(&self.graph);
            let inputs = self.read(frame, &graph.steps()[step].inputs);
            let run = Run {
                step,
                frame,
                closing: false,
                ended: false,
                live: 0,
                paused: false,
                next: 0,
                turn: 0,
                held: BTreeMap::new(),
            };
            self.running += 1;
            self.frames[frame].running += 1;
            actions.push(Action::Start { run: RunId(self.runs.insert(run)), step, inputs });
        }
        if self.frames[frame].owes_answer {
            self.answer(frame, actions);
        }
        for child in self.frames[frame].children.clone() {
            self.advance(child, actions);
            self.release(child, actions);
        }
    }

    fn answer(&mut self, frame: usize, actions: &mut Vec<Action<V, E>>) {
        let tensors: Vec<usize> = self.wanted.iter().map(|&output| self.graph.outputs()[output]).collect();
        if !self.all_known(frame, &tensors) {
            return;
        }
        self.frames[frame].owes_answer = false;
        let outputs = self.read(frame, &tensors);
        let answer = outputs.iter().any(Option::is_some).then_some(outputs);
        match self.frames[frame].origin {
            None => {
                actions
                    .push(answer.map_or(Action::Deadlock, |outputs| Action::Answer { outputs, last: false }));
            }
            // Answers leave in the order of the answers that they are made of.
            Some((run, number)) => {
                let run = &mut self.runs[run];
                run.held.insert(number, answer);
                while let Some(answer) = run.held.remove(&run.turn) {
                    run.turn += 1;
                    actions.extend(answer.map(|outputs| Action::Answer { outputs, last: false }));
                }
            }
        }
    }

    fn put(&mut self, frame: usize, tensor: usize, value: Option<V>) {
        let uses = self.uses[tensor];
        let slot = value.filter(|_| uses > 0).map_or(Slot::Absent, |value| Slot::Here { value, uses });
        self.frames[frame].slots[self.graph.place(tensor).1] = slot;
    }

    /// The frame that holds a tensor, seen from `frame`.
    fn holder(&self, frame: usize, tensor: usize) -> Option<usize> {
        let (stream, _) = self.graph.place(tensor);
        let mut at = frame;
        while self.frames[at].stream != stream {
            at = self.frames[at].parent?;
        }
        Some(at)
    }

    fn all_known(&self, frame: usize, tensors: &[usize]) -> bool {
        tensors.iter().all(|&tensor| {
            let slot = |holder: usize| &self.frames[holder].slots[self.graph.place(tensor).1];
            self.holder(frame, tensor).is_some_and(|holder| !matches!(slot(holder), Slot::Unknown))
        })
    }

    /// The last reader takes a tensor along, so that its memory is free as early as it can be.
    fn read(&mut self, frame: usize, tensors: &[usize]) -> Vec<Option<V>> {
        let one = |&tensor: &usize| {
            let holder = self.holder(frame, tensor)?;
            let slot = &mut self.frames[holder].slots[self.graph.place(tensor).1];
            match slot {
                Slot::Here { value, uses: KEPT } => Some(value.clone()),
                Slot::Here { value, uses } if *uses > 1 => {
                    *uses -= 1;
                    Some(value.clone())
                }
                Slot::Here { .. } => match std::mem::replace(slot, Slot::Absent) {
                    Slot::Here { value, .. } => Some(value),
                    Slot::Unknown | Slot::Absent => None,
                },
                Slot::Unknown | Slot::Absent => None,
            }
        };
        tensors.iter().map(one).collect()
    }

    /// Lets go of a frame of which nothing more comes, and of those around it that only waited for it.
    fn release(&mut self, frame: usize, actions: &mut Vec<Action<V, E>>) {
        let mut next = Some(frame);
        while let Some(frame) = next.filter(|frame| self.frames.get(*frame).is_some_and(Frame::is_over)) {
            let Frame { parent, origin, .. } = self.frames.remove(frame);
            if let Some(parent) = parent {
                self.frames[parent].children.retain(|child| *child != frame);
            }
            if let Some((number, _)) = origin {
                let run = &mut self.runs[number];
                run.live -= 1;
                if run.paused && run.live <= self.window / 4 {
                    run.paused = false;
                    if !run.closing {
                        actions.push(Action::Resume(RunId(number)));
                    }
                }
            }
            self.forget(origin.map(|(run, _)| run));
            next = parent;
        }
    }

    fn end(&mut self, run: RunId, actions: &mut Vec<Action<V, E>>) {
        self.running -= 1;
        let state = &mut self.runs[run.0];
        (state.closing, state.ended) = (true, true);
        let frame = state.frame;
        self.frames[frame].running -= 1;
        self.forget(Some(run.0));
        self.release(frame, actions);
    }

    /// Gives the number of a run back once its end is reported and its answers have gone.
    fn forget(&mut self, run: Option<usize>) {
        if let Some(run) = run
            && self.runs.get(run).is_some_and(|run| run.ended && run.live == 0)
        {
            self.runs.remove(run);
        }
    }

    fn give_up(&mut self, error: E, actions: &mut Vec<Action<V, E>>) {
        if !matches!(self.course, Course::On) {
            return;
        }
        self.course = Course::Failing(error);
        let running = self.runs.iter().filter(|(_, run)| !run.closing && !run.ended);
        actions.extend(running.map(|(number, _)| Action::Cancel(RunId(number))));
    }

    /// Looks whether that was all.
    fn settle(&mut self, actions: &mut Vec<Action<V, E>>) {
        if self.running > 0 {
            return;
        }
        match std::mem::replace(&mut self.course, Course::Over) {
            Course::Over => {}
            Course::Failing(error) => actions.push(Action::Fail(error)),
            Course::On if actions.iter().any(|action| matches!(action, Action::Deadlock)) => {}
            Course::On => {
                let answer = actions.iter_mut().rev().find_map(|action| match action {
                    Action::Answer { last, .. } => Some(last),
                    _ => None,
                });
                match answer {
                    Some(last) => *last = true,
                    None if self.frames.iter().any(|(_, frame)| frame.owes_answer) => {
                        actions.push(Action::Deadlock);
                    }
                    None => actions.push(Action::End),
                }
            }
        }
    }
}

/// How often each tensor is read in its own frame.
fn uses(graph: &Graph, needed: &[bool], wanted: &[usize], answer_stream: usize) -> Vec<usize> {
    let mut uses = vec![0; graph.tensors()];
    let mut count = |stream: usize, tensor: usize| {
        let own = graph.place(tensor).0 == stream;
        uses[tensor] = if own && uses[tensor] < KEPT { uses[tensor] + 1 } else { KEPT };
    };
    for (step, _) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
        graph.steps()[step].inputs.iter().for_each(|tensor| count(graph.runs_in(step), *tensor));
    }
    wanted.iter().for_each(|&output| count(answer_stream, graph.outputs()[output]));
    uses
}
