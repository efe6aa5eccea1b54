//! Any graph, with steps that answer in any order: every needed step runs once in each frame it belongs to and no other
//! runs, each answer is made of tensors that belong together and leaves in order, and nothing is left in the end.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Action, Flow, Graph, GraphStep, RunId};

/// A value says how it came about, so that two paths to one tensor can be compared.
type Value = Vec<u64>;

fn graphs() -> impl Strategy<Value = Graph> {
    let step = (prop::collection::vec(0usize..64, 1..4), 1usize..3, prop::bool::weighted(0.25));
    (1usize..4, prop::collection::vec(step, 1..8), prop::collection::vec(0usize..64, 1..4)).prop_filter_map(
        "streams meet",
        |(inputs, drafts, outputs)| {
            let (mut tensors, mut steps) = (inputs, Vec::new());
            for (reads, makes, decoupled) in drafts {
                let reads = reads.into_iter().map(|read| read % tensors).collect();
                steps.push(GraphStep {
                    inputs: reads,
                    outputs: (tensors..tensors + makes).collect(),
                    decoupled,
                });
                tensors += makes;
            }
            let mut outputs: Vec<usize> = outputs.into_iter().map(|output| output % tensors).collect();
            outputs.dedup();
            Graph::new(tensors, (0..inputs).collect(), outputs, steps).ok()
        },
    )
}

struct Running {
    run: RunId,
    step: usize,
    inputs: Vec<Option<Value>>,
    answers: u64,
}

#[derive(Default)]
struct World {
    running: Vec<Running>,
    started: Vec<usize>,
    answers: Vec<Vec<Option<Value>>>,
    last: usize,
    failed: bool,
}

impl World {
    fn carry_out(&mut self, actions: &mut Vec<Action<Value, ()>>) {
        for action in actions.drain(..) {
            assert_eq!(self.last, 0, "nothing follows the last action");
            match action {
                Action::Start { run, step, inputs } => {
                    assert!(self.running.iter().all(|other| other.run != run), "a number of a running one");
                    self.started[step] += 1;
                    self.running.push(Running { run, step, inputs, answers: 0 });
                }
                Action::Answer { outputs, last } => {
                    self.answers.push(outputs);
                    self.last += usize::from(last);
                }
                Action::End | Action::Deadlock => self.last += 1,
                Action::Fail(()) => {
                    assert!(self.running.is_empty(), "a failure waits for what runs");
                    (self.last, self.failed) = (1, true);
                }
                Action::Cancel(run) => assert!(self.running.iter().any(|other| other.run == run)),
                Action::Resume(_) => {}
            }
        }
    }
}

/// What `step` makes of `inputs` in its answer number `answer`.
fn made(step: usize, output: usize, answer: u64, inputs: &[Option<Value>]) -> Value {
    let mut value = vec![step as u64 + 1000, output as u64, answer];
    inputs.iter().flatten().for_each(|input| {
        value.push(input.len() as u64);
        value.extend(input);
    });
    value.truncate(512);
    value
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_graph_runs_to_its_end(
        graph in graphs(),
        picks in prop::collection::vec((any::<usize>(), 0u8..10), 0..400),
        fail_at in prop::option::weighted(0.2, 0usize..20),
        window in 1usize..5,
    ) {
        let graph = Arc::new(graph);
        let wanted: Vec<usize> = (0..graph.outputs().len()).collect();
        let needed = graph.needed(&wanted);
        let mut world = World { started: vec![0; graph.steps().len()], ..World::default() };
        let inputs = (0..graph.inputs().len()).map(|input| Some(vec![input as u64])).collect();
        let mut actions = Vec::new();
        let mut flow = Flow::start(Arc::clone(&graph), wanted, inputs, window, &mut actions);
        world.carry_out(&mut actions);
        let mut picks = picks.into_iter();
        let mut steps = 0;
        while !world.running.is_empty() {
            let (pick, coin) = picks.next().unwrap_or((0, 0));
            let at = pick % world.running.len();
            steps += 1;
            if fail_at == Some(steps) {
                let run = world.running.remove(at).run;
                flow.on_fail(run, (), &mut actions);
                world.carry_out(&mut actions);
                continue;
            }
            let one = &mut world.running[at];
            let step = &graph.steps()[one.step];
            let number = one.answers;
            let outputs: Vec<Option<Value>> =
                (0..step.outputs.len()).map(|output| Some(made(one.step, output, number, &one.inputs))).collect();
            // A decoupled step answers up to three times; the end comes with the last answer or after it.
            let (run, ends) = (one.run, !step.decoupled || coin < 3 || number >= 3);
            one.answers += 1;
            if ends {
                world.running.remove(at);
            }
            if ends && step.decoupled && coin % 2 == 0 {
                flow.on_end(run, &mut actions);
            } else {
                flow.on_answer(run, outputs, ends, &mut actions);
                prop_assert!(ends || flow.wants_pause(run) || !flow.is_over());
            }
            world.carry_out(&mut actions);
        }
        prop_assert_eq!(world.last, 1);
        prop_assert!(flow.is_over());
        prop_assert_eq!(flow.running(), 0);
        for (step, count) in world.started.iter().enumerate() {
            prop_assert!(needed[step] || *count == 0, "step {} is not needed", step);
        }
        if !world.failed {
            prop_assert_eq!(flow.frames(), 0);
            prop_assert!(world.answers.iter().all(|answer| answer.iter().all(Option::is_some)));
            if !graph.is_decoupled() {
                prop_assert_eq!(world.answers.len(), 1);
                prop_assert!(world.started.iter().zip(&needed).all(|(count, needed)| *count == usize::from(*needed)));
            }
        }
    }
}
