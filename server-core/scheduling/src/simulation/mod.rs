//! The whole of scheduling under random weather, for tests: seeds in, promises checked, scripts out.
//!
//! ```text
//!   seed ─▶ Plan, Generator ─▶ events ─▶ World ─▶ Loads: Dispatcher ◀─▶ Witness, order of answers, ledger
//!                                          │                             and predicates of their own
//!                                          └─ a promise broken ─▶ script ─▶ shrink ─▶ minimal script
//! ```
//! A *world* is a model with its reloads: a random configuration, clients, executions that take virtual time,
//! instances that fail, come back, are added and retired, cancellations, answers in any order. It ends with
//! everything that waits or runs brought to its end. Worlds are short, so that there are many of them and a
//! script of one is soon shrunk; a *seed* is as many worlds as its events allow.
//!
//! What happened is a [`Script`]: plain text in the words of `tests/timelines`, with `up`, `answer` and
//! `reload`, that can be run again, and any part of which is a script.

mod cached;
mod counts;
mod event;
mod finding;
mod generate;
mod ledger;
mod load;
mod order;
mod parse;
mod plan;
mod random;
#[cfg(test)]
mod regressions;
mod shrink;
mod world;

pub use counts::Counts;
pub use event::{Act, Arrival, At, Event, Script, Step};
pub use finding::Finding;
pub use parse::ParseError;
pub use plan::{Kind, Levels, Plan, PlanError};

use std::panic::{self, AssertUnwindSafe};

use generate::Generator;
use random::Random;
use world::World;

/// Events of the longest world.
const LONGEST: u64 = 2_000;

/// A promise that was broken, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub finding: Finding,
    /// As small as it could be made.
    pub script: Script,
    /// Events of the script as it was found.
    pub found_with: usize,
}

/// Simulates at least so many events from one seed. A seed always gives the same.
///
/// # Errors
/// The first promise that was broken, with what was counted before.
pub fn run(seed: u64, events: u64) -> Result<Counts, Box<(Counts, Failure)>> {
    let mut counts = Counts::default();
    let mut random = Random::new(seed);
    while counts.events() < events {
        let length = random.between(20, LONGEST);
        let (plan, world_seed) = (Plan::random(&mut random), random.next());
        let mut script = Script { plan, events: Vec::new() };
        let (found, counted) = run_world(&mut script, Random::new(world_seed), length);
        counts += counted;
        if let Err(finding) = found {
            let found_with = script.events.len();
            let (script, finding) = shrink::shrink(script, finding);
            return Err(Box::new((counts, Failure { seed, finding, script, found_with })));
        }
    }
    Ok(counts)
}

/// Writes the script of one world.
fn run_world(script: &mut Script, random: Random, length: u64) -> (Result<(), Finding>, Counts) {
    let Ok(mut world) = World::new(script.plan.clone()) else { return (Ok(()), Counts::default()) };
    let mut generator = Generator::new(random);
    let mut go = || {
        while world.counts.events() < length {
            match generator.next(&mut world) {
                Some(event) => {
                    script.events.push(event);
                    script.events.last().map_or(Ok(()), |event| world.apply(event))?;
                }
                None => world.attend()?,
            }
        }
        world.drain()
    };
    let found = caught(&mut go);
    (found, world.counts())
}

impl Script {
    /// Runs it to its end, and until nothing is left.
    ///
    /// # Errors
    /// The first promise that is not kept.
    pub fn run(&self) -> Result<(), Finding> {
        let Ok(mut world) = World::new(self.plan.clone()) else { return Ok(()) };
        caught(|| {
            for event in &self.events {
                world.apply(event)?;
                world.ledger.started.clear();
                world.ledger.ids.clear();
            }
            world.drain()
        })
    }
}

/// A panic is a finding, too. What was touched is not used any more.
fn caught(mut go: impl FnMut() -> Result<(), Finding>) -> Result<(), Finding> {
    panic::catch_unwind(AssertUnwindSafe(&mut go)).unwrap_or(Err(Finding::Panicked))
}
