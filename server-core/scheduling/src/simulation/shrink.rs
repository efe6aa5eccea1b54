//! The smallest script that still shows a fault: events are dropped, and what is left is made plainer.

use super::event::{Act, Event, Script};
use super::finding::Finding;
use super::plan::{Kind, Levels, Plan};

/// How often a script may be run on the way.
const RUNS: usize = 20_000;

#[derive(Debug)]
struct Shrink {
    best: Script,
    finding: Finding,
    runs: usize,
}

/// A script that shows the same kind of fault; what it shows.
pub(super) fn shrink(script: Script, finding: Finding) -> (Script, Finding) {
    let mut shrink = Shrink { best: script, finding, runs: 0 };
    loop {
        let before = shrink.best.clone();
        shrink.drop_events();
        shrink.plainer_events();
        shrink.plainer_plan();
        if shrink.best == before || shrink.runs >= RUNS {
            return (shrink.best, shrink.finding);
        }
    }
}

impl Shrink {
    /// Keeps the script if it shows the fault.
    fn attempt(&mut self, script: Script) -> bool {
        if self.runs >= RUNS {
            return false;
        }
        self.runs += 1;
        match script.run() {
            Err(found) if found.is_like(&self.finding) => {
                self.finding = found;
                self.best = script;
                true
            }
            _ => false,
        }
    }

    /// Ever smaller pieces are left out, from the end.
    fn drop_events(&mut self) {
        let mut piece = self.best.events.len().max(1);
        while piece > 0 {
            let mut end = self.best.events.len();
            while end > 0 {
                let start = end.saturating_sub(piece);
                let mut script = self.best.clone();
                script.events.drain(start..end);
                self.attempt(script);
                end = start.min(self.best.events.len());
            }
            piece /= 2;
        }
    }

    fn plainer_events(&mut self) {
        for n in 0..self.best.events.len() {
            let Some(event) = self.best.events.get(n).cloned() else { return };
            for plainer in plainer(&event) {
                let mut script = self.best.clone();
                if let Some(event) = script.events.get_mut(n) {
                    *event = plainer;
                }
                self.attempt(script);
            }
        }
    }

    fn plainer_plan(&mut self) {
        for change in CHANGES {
            let mut script = self.best.clone();
            change(&mut script.plan);
            if script.plan != self.best.plan {
                self.attempt(script);
            }
        }
    }
}

const CHANGES: [fn(&mut Plan); 10] = [
    |plan| plan.instances = 1,
    |plan| plan.instances = plan.instances.saturating_sub(1).max(1),
    |plan| plan.in_flight = 0,
    |plan| plan.pull = false,
    |plan| plan.ordered = false,
    |plan| plan.cached = false,
    |plan| levels(plan, |levels| *levels = Levels::default()),
    |plan| levels(plan, |levels| levels.by_level.clear()),
    |plan| match &mut plan.kind {
        Kind::Dynamic { preferred, .. } | Kind::Oldest { preferred, .. } => preferred.clear(),
        _ => {}
    },
    |plan| match &mut plan.kind {
        Kind::Dynamic { delay, .. } | Kind::Rows { delay, .. } | Kind::Oldest { delay, .. } => *delay = 0,
        Kind::Direct => {}
    },
];

fn levels(plan: &mut Plan, change: impl Fn(&mut Levels)) {
    if let Kind::Dynamic { levels, .. } = &mut plan.kind {
        change(levels);
    }
}

/// The same event with one thing less.
fn plainer(event: &Event) -> Vec<Event> {
    let Act::Arrive(arrival) = &event.act else { return Vec::new() };
    let with = |arrival| Event { at: event.at, act: Act::Arrive(arrival) };
    let mut found = Vec::new();
    let mut all = *arrival;
    (all.deadline, all.timeout, all.priority, all.shape, all.size) = (None, None, 0, 0, 1);
    found.push(with(all));
    if arrival.count > 1 {
        found.push(with(super::event::Arrival { count: 1, ..*arrival }));
        found.push(with(super::event::Arrival { count: arrival.count / 2, ..*arrival }));
        found.push(with(super::event::Arrival { count: arrival.count - 1, ..*arrival }));
        let first = arrival.first + 1;
        found.push(with(super::event::Arrival { first, count: arrival.count - 1, ..*arrival }));
    }
    if arrival.deadline.is_some() {
        found.push(with(super::event::Arrival { deadline: None, ..*arrival }));
    }
    if arrival.timeout.is_some() {
        found.push(with(super::event::Arrival { timeout: None, ..*arrival }));
    }
    if arrival.priority != 0 {
        found.push(with(super::event::Arrival { priority: 0, ..*arrival }));
    }
    if arrival.shape != 0 {
        found.push(with(super::event::Arrival { shape: 0, ..*arrival }));
    }
    if arrival.size != 1 {
        found.push(with(super::event::Arrival { size: 1, ..*arrival }));
    }
    found
}
