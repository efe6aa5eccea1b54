//! What instances of all models share with `--rate-limit=execution_count`: the pure limiter under a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use trireme_scheduling::{Demand, MemberId, Place, RateLimiter, Resource, Supplies};

use crate::error::ServeError;
use crate::instance::InstancePlan;
use crate::statistics::lock;

/// The resources of the server.
pub(crate) struct Limiter(Mutex<State>);

#[derive(Default)]
struct State {
    limiter: RateLimiter,
    /// Where the instances wait, each alone.
    waiting: BTreeMap<MemberId, Arc<Condvar>>,
    /// As they were written to the log.
    totals: BTreeMap<Place, u32>,
    /// Reused from one event to the next.
    granted: Vec<MemberId>,
}

/// An instance's part in the resources; without it, nothing of them is held.
pub(crate) struct Share {
    limiter: Arc<Limiter>,
    id: MemberId,
    turn: Arc<Condvar>,
}

impl State {
    /// Wakes whoever can run now.
    fn settle(&mut self) {
        self.limiter.grant(&mut self.granted);
        for id in self.granted.drain(..) {
            if let Some(turn) = self.waiting.get(&id) {
                turn.notify_one();
            }
        }
    }

    /// Tells the log how much there is, where that has changed.
    fn show(&mut self) {
        let now = self.limiter.pools().map(|(place, total, _)| (place.clone(), total)).collect();
        let before = std::mem::replace(&mut self.totals, now);
        for (place, total) in self.totals.iter().filter(|(place, total)| before.get(place) != Some(total)) {
            let of =
                place.device.map_or_else(|| "all devices".to_owned(), |device| format!("device {device}"));
            // In the words of upstream's log, for who looks for them.
            tracing::debug!("rate limiter, {of}: Resource: {}\t Count: {total}", place.name);
        }
    }
}

impl Limiter {
    pub(crate) fn new(supplies: Supplies) -> Arc<Self> {
        let state = State { limiter: RateLimiter::new(supplies), ..State::default() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Lets the instances of a load in, all or none. Those without resources have no share: nothing limits them.
    ///
    /// # Errors
    /// INVALID_ARG if one of them could never run.
    pub(crate) fn enter(self: &Arc<Self>, plans: &[InstancePlan]) -> Result<Vec<Option<Share>>, ServeError> {
        let demands: Vec<Option<Demand>> = plans.iter().map(demand).collect();
        let some: Vec<Demand> = demands.iter().flatten().cloned().collect();
        let mut state = lock(&self.0);
        let entered = state.limiter.enter(&some).map_err(|error| ServeError::invalid(error.to_string()))?;
        let mut entered = entered.into_iter();
        let shares = demands.iter().map(|demand| {
            demand.as_ref()?;
            let (id, turn) = (entered.next()?, Arc::new(Condvar::new()));
            state.waiting.insert(id, Arc::clone(&turn));
            Some(Share { limiter: Arc::clone(self), id, turn })
        });
        let shares = shares.collect();
        state.show();
        Ok(shares)
    }
}

fn demand(plan: &InstancePlan) -> Option<Demand> {
    let limiter = &plan.group.rate_limiter;
    let resources: Vec<Resource> = limiter
        .resources
        .iter()
        .filter(|one| one.count > 0)
        .map(|one| Resource { name: one.name.clone(), global: one.global, count: one.count })
        .collect();
    let demand = Demand { device: plan.device, resources, priority: limiter.priority };
    (!demand.resources.is_empty()).then_some(demand)
}

impl Limiter {
    /// Whether one of these instances could run while those hold what they need, and nobody else anything.
    pub(crate) fn could_run(&self, any: &[MemberId], beside: &[MemberId]) -> bool {
        let state = lock(&self.0);
        any.iter().any(|one| state.limiter.could_run(*one, beside))
    }
}

impl Share {
    pub(crate) fn member(&self) -> MemberId {
        self.id
    }

    /// Waits until the instance may run. It gets its place in the line now, unless it has one.
    pub(crate) fn acquire(&self) {
        let mut state = lock(&self.limiter.0);
        state.limiter.want(self.id);
        state.settle();
        while !state.limiter.holds(self.id) {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the instance may run.
    pub(crate) fn is_held(&self) -> bool {
        lock(&self.limiter.0).limiter.holds(self.id)
    }

    /// Gives back what is held, if anything is. `ran`: it was used. `again`: it is wanted again.
    pub(crate) fn give_back(&self, ran: bool, again: bool) {
        let mut state = lock(&self.limiter.0);
        state.limiter.done(self.id, ran, again);
        state.settle();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = lock(&self.limiter.0);
        state.waiting.remove(&self.id);
        state.limiter.leave(self.id);
        state.settle();
        state.show();
    }
}
