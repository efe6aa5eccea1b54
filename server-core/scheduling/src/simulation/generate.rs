//! What happens at random: clients, executions that take time, instances that fail, reloads.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::event::{Act, Arrival, At, Event, Step};
use super::load::State;
use super::plan::Plan;
use super::random::Random;
use super::world::World;

/// What is going to happen if nothing comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Answer(u64),
    Done(At, u64),
    Free(At),
    Up(At),
}

/// How one world goes about; chances are of a thousand, times in milliseconds.
#[derive(Debug)]
struct Habits {
    gap: u64,
    burst: u32,
    execution: u64,
    sizes: u32,
    shapes: u32,
    deadline: u32,
    timeout: u32,
    priority: u32,
    cancel: u32,
    fail: u32,
    resize: u32,
    reload: u32,
    stream: u32,
    decoupled: u32,
    sequences: u32,
}

impl Habits {
    fn random(random: &mut Random) -> Self {
        Self {
            gap: random.pick(&[0, 0, 1, 2, 4, 12, 40]),
            burst: random.pick(&[0, 50, 400]),
            execution: random.pick(&[1, 3, 10, 50, 200]),
            sizes: random.pick(&[1, 1, 3, 8]),
            shapes: random.pick(&[1, 1, 2, 4]),
            deadline: random.pick(&[0, 30, 300]),
            timeout: random.pick(&[0, 30, 300]),
            priority: random.pick(&[0, 500, 900]),
            cancel: random.pick(&[0, 20, 120]),
            fail: random.pick(&[0, 0, 5, 20]),
            resize: random.pick(&[0, 0, 5, 15]),
            reload: random.pick(&[0, 2, 10]),
            stream: random.pick(&[0, 0, 100, 500]),
            decoupled: random.pick(&[0, 100, 500]),
            sequences: random.small(1, 12),
        }
    }
}

#[derive(Debug)]
pub(super) struct Generator {
    random: Random,
    habits: Habits,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    number: u64,
    next_client: u64,
    next_id: u64,
    next_load: u32,
    /// Whether each sequence is open, as far as its client knows.
    open: Vec<bool>,
}

impl Generator {
    pub(super) fn new(mut random: Random) -> Self {
        let habits = Habits::random(&mut random);
        Self {
            open: vec![false; habits.sequences as usize + 1],
            random,
            habits,
            due: BinaryHeap::new(),
            number: 0,
            next_client: 0,
            next_id: 0,
            next_load: 1,
        }
    }

    /// The next event. None: something else comes before; let the world attend to it, and ask again.
    pub(super) fn next(&mut self, world: &mut World) -> Option<Event> {
        self.follow(world);
        let due = self.due.peek().map(|Reverse((at, _, _))| *at);
        let next = due.into_iter().chain([self.next_client]).min().unwrap_or(0);
        let is_over = world.is_dirty() && next > world.now();
        if is_over || world.next_wake().is_some_and(|wake| wake <= next) {
            return None;
        }
        if due == Some(next)
            && let Some(Reverse((at, _, due))) = self.due.pop()
        {
            let act = match due {
                Due::Answer(id) => Act::Answer(id),
                Due::Done(at, id) => Act::Done(at, id),
                Due::Free(at) => Act::Free(at),
                Due::Up(at) => Act::Up(at),
            };
            return Some(Event { at, act });
        }
        let at = self.next_client;
        self.next_client = at + if self.habits.gap == 0 { self.random.below(8) / 7 } else { self.gap() };
        Some(Event { at, act: self.act(world, at) })
    }

    fn gap(&mut self) -> u64 {
        self.random.below(self.habits.gap + 1)
    }

    fn push(&mut self, at: u64, due: Due) {
        self.number += 1;
        self.due.push(Reverse((at, self.number, due)));
    }

    /// Every batch that has begun is going to end.
    fn follow(&mut self, world: &mut World) {
        for n in 0..world.ledger.started.len() {
            let Some(&started) = world.ledger.started.get(n) else { break };
            let begin = super::load::millis(started.now);
            let end = begin + self.random.below(self.habits.execution + 1);
            let ids = world.ledger.ids.get(started.from..started.to).unwrap_or_default();
            for &id in ids {
                let mut done = end;
                if self.random.chance(self.habits.decoupled) {
                    done = begin + self.random.below(2 * self.habits.execution + 1);
                }
                if self.random.chance(self.habits.stream) {
                    for _ in 0..self.random.between(1, 3) {
                        let answer = begin + self.random.below(done - begin + 1);
                        self.push(answer, Due::Answer(id.0));
                    }
                    // A backend that goes on after its last answer.
                    if self.random.chance(20) {
                        self.push(done + 1, Due::Answer(id.0));
                    }
                }
                self.push(done, Due::Done(started.at, id.0));
            }
            self.push(end, Due::Free(started.at));
        }
        world.ledger.started.clear();
        world.ledger.ids.clear();
    }

    fn act(&mut self, world: &World, at: u64) -> Act {
        let Habits { cancel, fail, resize, reload, .. } = self.habits;
        let dice = self.random.below(1_000) as u32;
        let mut below = 0;
        let mut is = |share: u32| {
            below += share;
            dice < below
        };
        if is(cancel) {
            return Act::Cancel(self.next_id.saturating_sub(1 + self.random.below(20)));
        }
        if is(fail)
            && let Some(at) = self.instance(world)
        {
            return self.fail(world, at);
        }
        if is(resize) {
            let adds = self.random.chance(500);
            let load = self.random.below(world.loads.len() as u64) as usize;
            if let Some(load) = world.loads.get(load).filter(|load| adds && load.instances.len() < 8) {
                return Act::Add(load.number);
            }
            if let Some(at) = self.instance(world) {
                return Act::Retire(at);
            }
        }
        if is(reload) && world.loads.len() < 6 {
            if self.random.chance(100) {
                return Act::Close;
            }
            return self.reload(world);
        }
        if world.loads.last().is_some_and(|load| load.closed) && self.random.chance(200) {
            return self.reload(world);
        }
        Act::Arrive(self.arrival(world, at))
    }

    fn reload(&mut self, world: &World) -> Act {
        let number = self.next_load;
        self.next_load += 1;
        let plan = match world.loads.last() {
            Some(load) if self.random.chance(500) => load.plan.clone(),
            _ => Plan::random(&mut self.random),
        };
        Act::Reload(number, Box::new(plan))
    }

    fn fail(&mut self, world: &World, at: At) -> Act {
        let now = self.next_client;
        // Whoever it had is answered by the runtime, and soon it is back.
        let running = world.loads.iter().find(|load| load.number == at.model);
        let running = running.and_then(|load| load.instances.get(at.instance as usize));
        for id in running.map(|of| of.running.clone()).unwrap_or_default() {
            let done = now + self.random.below(3);
            self.push(done, Due::Done(at, id.0));
        }
        let up = now + 1 + self.random.below(30);
        self.push(up, Due::Up(at));
        Act::Down(at)
    }

    fn instance(&mut self, world: &World) -> Option<At> {
        let load = world.loads.get(self.random.below(world.loads.len() as u64) as usize)?;
        let instance = self.random.below(load.instances.len() as u64) as u32;
        let at = At { model: load.number, instance };
        world.state_of(at).filter(|(_, state)| *state != State::Ended).map(|_| at)
    }

    fn arrival(&mut self, world: &World, now: u64) -> Arrival {
        let plan = world.loads.last().map(|load| &load.plan);
        let sequences = plan.is_some_and(|plan| plan.kind.has_sequences());
        let (habits, random) = (&self.habits, &mut self.random);
        let count = if random.chance(habits.burst) { random.small(2, 12) } else { 1 };
        let max = plan.and_then(|plan| plan.kind.max_size()).unwrap_or(4);
        let mut size = random.small(1, habits.sizes.min(max).max(1));
        if random.chance(10) {
            size = random.small(0, max + 1);
        }
        let deadline = random.chance(habits.deadline).then(|| now + random.below(80));
        let timeout = random.chance(habits.timeout).then(|| random.below(90) as u32);
        let priority = if random.chance(habits.priority) { random.below(6) as u8 } else { 0 };
        let content = plan.filter(|plan| plan.cached).map(|_| random.below(400) as u16);
        let mut arrival = Arrival {
            first: self.next_id,
            count,
            size,
            shape: random.small(0, habits.shapes - 1) as u8,
            priority,
            timeout,
            deadline,
            step: None,
            content,
        };
        // Sequences of an old load go on for a while.
        if sequences || (world.loads.len() > 1 && random.chance(50)) {
            let sequence = random.small(1, habits.sequences);
            let open = self.open.get(sequence as usize).copied().unwrap_or(false);
            let start = random.chance(if open { 40 } else { 970 });
            let end = random.chance(200);
            if let Some(open) = self.open.get_mut(sequence as usize) {
                *open = (*open || start) && !end;
            }
            arrival.step = Some(Step { sequence, start, end }).filter(|_| !random.chance(5));
            arrival.count = 1;
            // Timeouts and deadlines end whole sequences.
            arrival.deadline = deadline.filter(|_| random.chance(300));
        }
        self.next_id += u64::from(arrival.count);
        arrival
    }
}
