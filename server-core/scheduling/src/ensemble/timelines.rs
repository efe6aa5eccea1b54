//! Scripted time-lines. The first line is the graph, every other an event:
//!
//! ```text
//! a b -> x* : c, d        input tensors, step (* decoupled), output tensors; steps are separated by `;`, the last
//!                         part names what the answer is made of: `answer c d`
//! start a=1 b=-           `-` leaves an input out; `want=c` names the outputs, all without it; `window=2`
//! x c=5 d=6               an answer of the run of `x` that started first; `x! ...` is its last one
//! end x / fail x / cancel
//! ```
//! A tensor's value is a text; a step that is started shows what it got.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use expect_test::{Expect, expect};

use super::{Action, Flow, Graph, GraphStep, RunId};

struct Stage {
    graph: Arc<Graph>,
    names: Vec<String>,
    steps: Vec<String>,
    flow: Option<Flow<String, String>>,
    runs: BTreeMap<String, Vec<RunId>>,
    log: String,
}

fn check(script: &str, expect: Expect) {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut stage = Stage::new(lines.next().expect("a graph"));
    for line in lines {
        stage.event(line);
    }
    let flow = stage.flow.expect("a start");
    if flow.is_over() {
        let _ = writeln!(stage.log, "over");
    }
    expect.assert_eq(&stage.log);
}

impl Stage {
    fn new(text: &str) -> Self {
        let (mut names, mut steps, mut graph_steps) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = |name: &str| {
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        };
        let (mut outputs, mut made) = (Vec::new(), Vec::new());
        for part in text.split(';').map(str::trim) {
            if let Some(wanted) = part.strip_prefix("answer") {
                outputs = wanted.split_whitespace().map(&mut number).collect();
                continue;
            }
            let (inputs, rest) = part.split_once("->").expect("an arrow");
            let (step, makes) = rest.split_once(':').expect("a colon");
            let name = step.trim().trim_end_matches('*');
            let step = GraphStep {
                inputs: inputs.split_whitespace().map(&mut number).collect(),
                outputs: makes.split_whitespace().map(&mut number).collect(),
                decoupled: step.trim().ends_with('*'),
            };
            made.extend(step.outputs.clone());
            steps.push(name.to_owned());
            graph_steps.push(step);
        }
        let inputs = (0..names.len()).filter(|tensor| !made.contains(tensor)).collect();
        let graph = Graph::new(names.len(), inputs, outputs, graph_steps).expect("a graph");
        Self { graph: Arc::new(graph), names, steps, flow: None, runs: BTreeMap::new(), log: String::new() }
    }

    fn event(&mut self, line: &str) {
        let _ = writeln!(self.log, "> {line}");
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a verb");
        let rest: Vec<&str> = words.collect();
        let fields: BTreeMap<&str, &str> = rest.iter().filter_map(|word| word.split_once('=')).collect();
        let value = |names: &[String], tensor: usize| {
            fields.get(names[tensor].as_str()).filter(|value| **value != "-").map(|value| (*value).to_owned())
        };
        let mut actions = Vec::new();
        let Some(flow) = &mut self.flow else {
            let inputs = self.graph.inputs().iter().map(|&tensor| value(&self.names, tensor)).collect();
            let all = 0..self.graph.outputs().len();
            let wants = |output: &usize| {
                let name = self.names[self.graph.outputs()[*output]].as_str();
                fields.get("want").is_none_or(|wanted| wanted.split(',').any(|one| one == name))
            };
            let window = fields.get("window").map_or(64, |window| window.parse().expect("a number"));
            let wanted = all.filter(wants).collect();
            self.flow = Some(Flow::start(Arc::clone(&self.graph), wanted, inputs, window, &mut actions));
            return self.show(actions);
        };
        let mut paused = false;
        match verb {
            "cancel" => flow.cancel("cancelled".to_owned(), &mut actions),
            "end" => flow.on_end(self.runs.get_mut(rest[0]).expect("a run").remove(0), &mut actions),
            "fail" => {
                let run = self.runs.get_mut(rest[0]).expect("a run").remove(0);
                flow.on_fail(run, format!("{} failed", rest[0]), &mut actions);
            }
            step => {
                let (name, last) = step.strip_suffix('!').map_or((step, false), |name| (name, true));
                let runs = self.runs.get_mut(name).expect("a run");
                let run = if last { runs.remove(0) } else { runs[0] };
                let step =
                    &self.graph.steps()[self.steps.iter().position(|one| one == name).expect("a step")];
                let outputs = step.outputs.iter().map(|&tensor| value(&self.names, tensor)).collect();
                flow.on_answer(run, outputs, last, &mut actions);
                paused = !last && flow.wants_pause(run);
            }
        }
        self.show(actions);
        if paused {
            let _ = writeln!(self.log, "  pause");
        }
    }

    fn show(&mut self, actions: Vec<Action<String, String>>) {
        let list = |values: &[Option<String>]| {
            let texts: Vec<&str> = values.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
            texts.join(" ")
        };
        for action in actions {
            let line = match action {
                Action::Start { run, step, inputs } => {
                    self.runs.entry(self.steps[step].clone()).or_default().push(run);
                    format!("run {} with {}", self.steps[step], list(&inputs))
                }
                Action::Cancel(run) => {
                    let name = self.runs.iter().find(|(_, runs)| runs.contains(&run)).expect("a run").0;
                    format!("cancel {name}")
                }
                Action::Resume(_) => "resume".to_owned(),
                Action::Answer { outputs, last } => {
                    format!("answer {}{}", list(&outputs), if last { " (last)" } else { "" })
                }
                Action::End => "end".to_owned(),
                Action::Fail(error) => format!("fail: {error}"),
                Action::Deadlock => "deadlock".to_owned(),
            };
            let _ = writeln!(self.log, "  {line}");
        }
    }
}

#[test]
fn steps_that_need_nothing_of_each_other_run_side_by_side() {
    check(
        "a -> pre : b c; b -> left : d; c -> right : e; d e -> join : f; answer f
         start a=1
         pre! b=2 c=3
         right! e=5
         left! d=4
         join! f=6",
        expect![[r#"
            > start a=1
              run pre with 1
            > pre! b=2 c=3
              run left with 2
              run right with 3
            > right! e=5
            > left! d=4
              run join with 4 5
            > join! f=6
              answer 6 (last)
            over
        "#]],
    );
}

#[test]
fn a_step_that_no_wanted_output_needs_does_not_run() {
    check(
        "a -> x : b; a -> y : c; answer b c
         start a=1 want=c
         y! c=2",
        expect![[r#"
            > start a=1 want=c
              run y with 1
            > y! c=2
              answer 2 (last)
            over
        "#]],
    );
}

#[test]
fn what_is_left_out_stays_left_out() {
    check(
        "a o -> x : b c; b c -> y : d; answer d
         start a=1 o=-
         x! b=2 c=-
         y! d=-",
        expect![[r#"
            > start a=1 o=-
              run x with 1 -
            > x! b=2 c=-
              run y with 2 -
            > y! d=-
              deadlock
            over
        "#]],
    );
}

#[test]
fn each_answer_of_a_decoupled_step_runs_the_rest() {
    check(
        "a -> split* : b; b a -> work : c; answer c
         start a=1
         split b=10
         split b=20
         work! c=11
         end split
         work! c=21",
        expect![[r#"
            > start a=1
              run split with 1
            > split b=10
              run work with 10 1
            > split b=20
              run work with 20 1
            > work! c=11
              answer 11
            > end split
            > work! c=21
              answer 21 (last)
            over
        "#]],
    );
}

#[test]
fn answers_keep_the_order_of_the_stream_they_are_made_of() {
    check(
        "a -> split* : b; b -> fast : c; b c -> slow : d; answer d
         start a=1
         split b=1
         split! b=2
         fast! c=1
         fast! c=2
         slow! d=1
         slow! d=2",
        expect![[r#"
            > start a=1
              run split with 1
            > split b=1
              run fast with 1
            > split! b=2
              run fast with 2
            > fast! c=1
              run slow with 1 1
            > fast! c=2
              run slow with 2 2
            > slow! d=1
              answer 1
            > slow! d=2
              answer 2 (last)
            over
        "#]],
    );
}

#[test]
fn no_answer_of_a_decoupled_step_is_no_answer_at_all() {
    check(
        "a -> split* : b; b -> work : c; answer c
         start a=1
         end split",
        expect![[r#"
            > start a=1
              run split with 1
            > end split
              end
            over
        "#]],
    );
}

#[test]
fn a_decoupled_step_inside_another_one() {
    check(
        "a -> outer* : b; b -> inner* : c; a b c -> join : d; answer d b
         start a=1
         outer! b=10
         inner c=100
         join! d=x
         inner! c=200
         join! d=y",
        expect![[r#"
            > start a=1
              run outer with 1
            > outer! b=10
              run inner with 10
            > inner c=100
              run join with 1 10 100
            > join! d=x
              answer x 10
            > inner! c=200
              run join with 1 10 200
            > join! d=y
              answer y 10 (last)
            over
        "#]],
    );
}

#[test]
fn a_failure_is_told_when_nothing_runs_any_more() {
    check(
        "a -> x : b; a -> y : c; b c -> z : d; answer d
         start a=1
         fail x
         y! c=2",
        expect![[r#"
            > start a=1
              run x with 1
              run y with 1
            > fail x
              cancel y
            > y! c=2
              fail: x failed
            over
        "#]],
    );
}

#[test]
fn a_cancellation_reaches_all_that_runs_and_starts_nothing() {
    check(
        "a -> split* : b; b -> work : c; answer c
         start a=1
         split b=1
         cancel
         split b=2
         work! c=1
         fail split",
        expect![[r#"
            > start a=1
              run split with 1
            > split b=1
              run work with 1
            > cancel
              cancel split
              cancel work
            > split b=2
            > work! c=1
            > fail split
              fail: cancelled
            over
        "#]],
    );
}

#[test]
fn a_stream_that_runs_ahead_is_paused() {
    check(
        "a -> split* : b; b -> work : c; answer c
         start a=1 window=2
         split b=1
         split b=2
         work! c=1
         work! c=2
         split b=3
         work! c=3
         end split",
        expect![[r#"
            > start a=1 window=2
              run split with 1
            > split b=1
              run work with 1
            > split b=2
              run work with 2
              pause
            > work! c=1
              answer 1
            > work! c=2
              answer 2
              resume
            > split b=3
              run work with 3
            > work! c=3
              answer 3
            > end split
              end
            over
        "#]],
    );
}

#[test]
fn an_input_that_goes_straight_to_the_answer() {
    check(
        "a -> split* : b; answer a b
         start a=1
         split b=2
         end split",
        expect![[r#"
            > start a=1
              run split with 1
            > split b=2
              answer 1 2
            > end split
              end
            over
        "#]],
    );
}
