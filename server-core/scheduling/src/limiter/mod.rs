//! Which instances of all models may run at the same time: each execution takes resources, of which there are only so
//! many.
//!
//! ```text
//!   enter ─▶ Idle ── want ──▶ Waiting ── grant ──▶ Holding      any ── leave ──▶ gone
//!             ▲                  ▲                    │
//!             └── done ──────────┴─ done, again ──────┘
//! ```
//! **Order.** Whoever has the smallest clock goes first, then who has waited longest. An execution moves an instance's
//! clock on by its priority, so that one of priority 2 has half the turns of one of priority 1. Who was idle, or is
//! new, begins at the clock of the pools that it needs: it has no turns to make up for.
//!
//! **Nobody starves.** What the first one needs is kept for it: those behind it get only pools that nobody before them
//! waits for. And who was passed by more often than priorities explain is next whatever the clocks say.

mod demand;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use slab::Slab;

pub use demand::{Demand, LimitError, Place, Resource, Supplies};

/// An instance that takes part, of whatever model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Holding,
}

#[derive(Debug)]
struct Member {
    /// The pools that it takes from, and how much.
    needs: Vec<(usize, u32)>,
    priority: u64,
    state: State,
    clock: u64,
    /// The number of the event with which it began to wait.
    since: u64,
    /// How often another one has got something of its pools since then.
    passed_by: u64,
}

#[derive(Debug)]
struct Pool {
    place: Place,
    /// How many members need how much.
    needs: BTreeMap<u32, usize>,
    /// What was said at the start.
    given: Option<u32>,
    used: u64,
    /// The clock of the member that took from it last.
    clock: u64,
}

impl Pool {
    fn total(&self) -> u32 {
        self.given.unwrap_or_else(|| self.needs.last_key_value().map_or(0, |(most, _)| *most))
    }

    fn has(&self, count: u32) -> bool {
        self.used + u64::from(count) <= u64::from(self.total())
    }
}

/// The resources of a server and the instances that share them.
#[derive(Debug, Default)]
pub struct RateLimiter {
    supplies: Supplies,
    pools: Slab<Pool>,
    by_place: BTreeMap<Place, usize>,
    members: BTreeMap<MemberId, Member>,
    waiting: Vec<MemberId>,
    next_member: u64,
    events: u64,
}

impl RateLimiter {
    pub fn new(supplies: Supplies) -> Self {
        Self { supplies, ..Self::default() }
    }

    /// Lets instances in, all or none. One without resources need not take part.
    ///
    /// # Errors
    /// One of them could never run, or takes a resource as global that others take as one of devices.
    pub fn enter(&mut self, demands: &[Demand]) -> Result<Vec<MemberId>, LimitError> {
        let places: Vec<_> = demands.iter().map(Demand::places).collect();
        self.check(places.iter().flatten())?;
        let enter = |(places, demand): (BTreeMap<Place, u32>, &Demand)| {
            let needs = places.into_iter().map(|(place, count)| (self.pool(place), count)).collect();
            self.next_member += 1;
            let id = MemberId(self.next_member);
            self.add(id, needs, demand.priority);
            id
        };
        Ok(places.into_iter().zip(demands).map(enter).collect())
    }

    fn check<'a>(&self, needs: impl Iterator<Item = (&'a Place, &'a u32)> + Clone) -> Result<(), LimitError> {
        let mut scopes: BTreeMap<&str, bool> = BTreeMap::new();
        let places = self.by_place.keys().chain(needs.clone().map(|(place, _)| place));
        for place in places {
            let global = place.device.is_none();
            if *scopes.entry(&place.name).or_insert(global) != global {
                return Err(LimitError::TwoScopes { name: place.name.clone() });
            }
        }
        for (place, needed) in needs {
            if let Some(there) = self.supplies.of(place).filter(|there| there < needed) {
                return Err(LimitError::TooFew { name: place.name.clone(), there, needed: *needed });
            }
        }
        Ok(())
    }

    fn pool(&mut self, place: Place) -> usize {
        if let Some(pool) = self.by_place.get(&place) {
            return *pool;
        }
        let given = self.supplies.of(&place);
        let pool = Pool { place: place.clone(), needs: BTreeMap::new(), given, used: 0, clock: 0 };
        let number = self.pools.insert(pool);
        self.by_place.insert(place, number);
        number
    }

    fn add(&mut self, id: MemberId, needs: Vec<(usize, u32)>, priority: u32) {
        for (pool, count) in &needs {
            *self.pools[*pool].needs.entry(*count).or_default() += 1;
        }
        let priority = u64::from(priority.max(1));
        let member = Member { needs, priority, state: State::Idle, clock: 0, since: 0, passed_by: 0 };
        self.members.insert(id, member);
    }

    /// The instance ends; what it holds is free. One that is not here any more has no effect, as in all events.
    pub fn leave(&mut self, id: MemberId) {
        self.done(id, false, false);
        let Some(member) = self.members.remove(&id) else { return };
        for (number, count) in member.needs {
            let Some(pool) = self.pools.get_mut(number) else { continue };
            if let Some(members) = pool.needs.get_mut(&count) {
                *members -= 1;
                if *members == 0 {
                    pool.needs.remove(&count);
                }
            }
            if pool.needs.is_empty() {
                let pool = self.pools.remove(number);
                self.by_place.remove(&pool.place);
            }
        }
    }

    // Idle -> Waiting
    /// The instance has something to run.
    pub fn want(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.state == State::Idle) else {
            return;
        };
        let pools = member.needs.iter().filter_map(|(pool, _)| self.pools.get(*pool));
        member.clock = pools.map(|pool| pool.clock).max().unwrap_or(0).max(member.clock);
        self.wait(id);
    }

    fn wait(&mut self, id: MemberId) {
        self.events += 1;
        if let Some(member) = self.members.get_mut(&id) {
            (member.state, member.since, member.passed_by) = (State::Waiting, self.events, 0);
            self.waiting.push(id);
        }
    }

    // Holding -> Idle | Waiting; Waiting -> Idle
    /// The instance gives back what it holds. `ran`: it has run, which moves its clock on; `again`: there is more to
    /// run, so that it is in the line before anybody else gets what it gave back.
    pub fn done(&mut self, id: MemberId, ran: bool, again: bool) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.state == State::Waiting && !again {
            // It waits no longer.
            member.state = State::Idle;
            self.waiting.retain(|waiting| *waiting != id);
        }
        if member.state != State::Holding {
            return;
        }
        member.state = State::Idle;
        if ran {
            member.clock = member.clock.saturating_add(member.priority);
        }
        for (pool, count) in &member.needs {
            if let Some(pool) = self.pools.get_mut(*pool) {
                pool.used = pool.used.saturating_sub(u64::from(*count));
            }
        }
        if again {
            self.wait(id);
        }
    }

    // Waiting -> Holding
    /// Hands out what can be handed out and appends who got it. To be called after each event.
    pub fn grant(&mut self, granted: &mut Vec<MemberId>) {
        let all = self.members.len() as u64;
        let members = &self.members;
        self.waiting.sort_by_key(|id| members.get(id).map(|member| member.rank(all)));
        // What somebody waits for, those after it do not get.
        let mut kept = vec![false; self.pools.capacity()];
        let mut lucky = Vec::new();
        for id in &self.waiting {
            let Some(member) = self.members.get_mut(id) else { continue };
            let pools = &mut self.pools;
            let there = |(pool, count): &(usize, u32)| !kept[*pool] && pools[*pool].has(*count);
            if member.needs.iter().all(there) {
                for (pool, count) in &member.needs {
                    let pool = &mut pools[*pool];
                    pool.used += u64::from(*count);
                    pool.clock = pool.clock.max(member.clock);
                }
                member.state = State::Holding;
                lucky.push(*id);
            } else {
                member.needs.iter().for_each(|(pool, _)| kept[*pool] = true);
            }
        }
        self.waiting.retain(|id| !lucky.contains(id));
        for winner in &lucky {
            self.note_passed_by(*winner);
        }
        granted.extend(lucky);
    }

    fn note_passed_by(&mut self, winner: MemberId) {
        let Some(taken) = self.members.get(&winner).map(|member| member.needs.clone()) else { return };
        for id in &self.waiting {
            let Some(member) = self.members.get_mut(id) else { continue };
            let shares = member.needs.iter().any(|(pool, _)| taken.iter().any(|(other, _)| other == pool));
            member.passed_by += u64::from(shares);
        }
    }

    /// Whether this instance may run now.
    pub fn holds(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.state == State::Holding)
    }

    /// Whether this instance could run while those hold what they need, and nobody else anything.
    pub fn could_run(&self, id: MemberId, beside: &[MemberId]) -> bool {
        let needs = |id: &MemberId| self.members.get(id).map_or(&[][..], |member| member.needs.as_slice());
        let held = |pool: usize| -> u64 {
            let of_pool = |(other, count): &(usize, u32)| (*other == pool).then_some(u64::from(*count));
            beside.iter().flat_map(needs).filter_map(of_pool).sum()
        };
        let fits = |(pool, count): &(usize, u32)| {
            let total = self.pools.get(*pool).map_or(0, Pool::total);
            held(*pool) + u64::from(*count) <= u64::from(total)
        };
        needs(&id).iter().all(fits)
    }

    /// Every pool that somebody needs: how much there is, and how much is taken.
    pub fn pools(&self) -> impl Iterator<Item = (&Place, u32, u64)> {
        self.by_place.iter().map(|(place, pool)| (place, self.pools[*pool].total(), self.pools[*pool].used))
    }
}

impl Member {
    /// The place in the line: who was passed by for too long, then by clock. `all`: how many members there are.
    fn rank(&self, all: u64) -> (bool, u64, u64) {
        // By each other one at most as often as the priorities explain, and once at either end.
        let overdue = self.passed_by > self.priority.saturating_add(2).saturating_mul(all);
        if overdue { (false, 0, self.since) } else { (true, self.clock, self.since) }
    }
}
