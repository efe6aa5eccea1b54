//! The loads of one model, one after the other, on one virtual clock.

use super::cached::Cache;
use super::counts::Counts;
use super::event::{Act, Arrival, At, Event};
use super::finding::Finding;
use super::ledger::{Entry, Ledger, State as Fate};
use super::load::{Load, State, millis};
use super::plan::{Plan, PlanError};
use crate::instances::InstanceId;
use crate::request::{RequestId, RequestInfo, ShapeKey};
use crate::sequence::{CorrelationId, SequenceStep};
use crate::time::Time;

#[derive(Debug)]
pub(super) struct World {
    /// The last one takes what arrives.
    pub(super) loads: Vec<Load>,
    pub(super) ledger: Ledger,
    pub(super) counts: Counts,
    cache: Cache,
    /// The load that took the latest START of each sequence.
    starts: Vec<u32>,
    now: Time,
}

type Checked = Result<(), Finding>;

impl World {
    /// # Errors
    /// The configuration is refused.
    pub(super) fn new(plan: Plan) -> Result<Self, PlanError> {
        Ok(Self {
            loads: vec![Load::new(0, plan)?],
            ledger: Ledger::default(),
            counts: Counts { worlds: 1, ..Counts::default() },
            cache: Cache::default(),
            starts: Vec::new(),
            now: Time::ZERO,
        })
    }

    /// What was done so far.
    pub(super) fn counts(&self) -> Counts {
        Counts { batches: self.ledger.batches, batched: self.ledger.batched, ..self.counts }
    }

    /// In milliseconds.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.loads.iter().filter_map(Load::wake).min().map(millis)
    }

    /// In milliseconds.
    pub(super) fn now(&self) -> u64 {
        millis(self.now)
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.loads.iter().any(|load| load.dirty)
    }

    /// All of this instant has happened.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn flush(&mut self) -> Checked {
        self.loads.iter_mut().try_for_each(|load| load.flush(self.now, &mut self.ledger))
    }

    /// What has to be done before the next event: the end of this instant, or a wake-up.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn attend(&mut self) -> Checked {
        if self.is_dirty() {
            return self.flush();
        }
        self.next_wake().map_or(Ok(()), |wake| self.wake(wake))
    }

    /// Wakes who wanted to be woken at this time.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn wake(&mut self, at: u64) -> Checked {
        self.now = self.now.max(Time::from_millis(at));
        for load in &mut self.loads {
            if load.wake().is_some_and(|wake| wake <= self.now) {
                self.counts.wakes += 1;
                load.on_wake(self.now, &mut self.ledger)?;
            }
        }
        Ok(())
    }

    /// Lets the time pass and the event happen. One that makes no sense has no effect, so that any part of a
    /// script is a script.
    ///
    /// # Errors
    /// A promise was not kept.
    pub(super) fn apply(&mut self, event: &Event) -> Checked {
        if Time::from_millis(event.at) > self.now {
            self.flush()?;
        }
        while let Some(wake) = self.next_wake().filter(|wake| *wake <= event.at) {
            self.wake(wake)?;
        }
        self.now = self.now.max(Time::from_millis(event.at));
        let now = self.now;
        match &event.act {
            Act::Arrive(arrival) => self.arrive(arrival),
            Act::Cancel(id) => {
                let entry = self.ledger.get(*id);
                let Some(load) = self.load_of(entry.model).filter(|_| entry.state != Fate::Absent) else {
                    return Ok(());
                };
                self.counts.cancels += 1;
                self.loads[load].on_cancel(RequestId(*id), now, &mut self.ledger)
            }
            Act::Answer(id) => {
                let entry = self.ledger.get(*id);
                // One behind the last is a backend's mistake, and is to be caught.
                if !matches!(entry.state, Fate::Running(_) | Fate::Answered) {
                    return Ok(());
                }
                let Some(load) = self.load_of(entry.model) else { return Ok(()) };
                self.counts.answers += 1;
                self.loads[load].on_answer(RequestId(*id), entry.place, false)
            }
            Act::Done(_, id) => self.done(*id),
            Act::Free(at) => match self.state_of(*at) {
                Some((load, State::Busy)) => {
                    self.counts.frees += 1;
                    self.loads[load].on_free(InstanceId(at.instance), now, &mut self.ledger)
                }
                _ => Ok(()),
            },
            Act::Up(at) => match self.state_of(*at) {
                Some((load, State::Down)) => {
                    self.counts.ups += 1;
                    self.loads[load].on_free(InstanceId(at.instance), now, &mut self.ledger)
                }
                _ => Ok(()),
            },
            Act::Down(at) => match self.state_of(*at) {
                Some((load, State::Free | State::Busy)) => {
                    self.counts.downs += 1;
                    self.loads[load].on_down(InstanceId(at.instance), now, &mut self.ledger)
                }
                _ => Ok(()),
            },
            Act::Retire(at) => match self.state_of(*at) {
                Some((load, State::Free | State::Busy | State::Down)) => {
                    self.counts.retires += 1;
                    self.loads[load].on_retire(InstanceId(at.instance), now, &mut self.ledger)
                }
                _ => Ok(()),
            },
            Act::Add(number) => {
                let Some(load) = self.load_of(*number) else { return Ok(()) };
                self.counts.adds += 1;
                self.loads[load].on_add(now, &mut self.ledger)
            }
            Act::Close => self.close(),
            Act::Reload(number, plan) => {
                if self.load_of(*number).is_some() {
                    return Ok(());
                }
                // The new load is there before the old one closes: nothing finds neither.
                let Ok(next) = Load::new(*number, (**plan).clone()) else { return Ok(()) };
                self.close()?;
                self.counts.reloads += 1;
                self.loads.push(next);
                Ok(())
            }
        }
    }

    /// Ends all that runs, lets instances come back and time pass, until nothing is left.
    ///
    /// # Errors
    /// Something is left, or another promise was not kept.
    pub(super) fn drain(&mut self) -> Checked {
        for load in 0..self.loads.len() {
            let now = self.now;
            if !self.loads[load].closed {
                self.counts.closes += 1;
                self.loads[load].on_close(now, &mut self.ledger)?;
            }
            // Every round runs a request, or lets the time pass to what is due.
            let mut rounds = 64 + 8 * self.ledger.open;
            while !self.loads[load].is_drained() {
                rounds -= 1;
                if rounds == 0 {
                    return Err(Finding::DoesNotDrain(self.loads[load].number));
                }
                self.drain_once(load)?;
            }
            // Running requests without a place in a queue.
            while let Some((_, id)) = self.loads[load].any_running() {
                self.done(id.0)?;
            }
            self.flush()?;
            self.loads[load].check_end()?;
        }
        self.ledger.check_all_answered()
    }

    fn drain_once(&mut self, load: usize) -> Checked {
        self.flush()?;
        while let Some((_, id)) = self.loads[load].any_running() {
            self.done(id.0)?;
        }
        let number = self.loads[load].number;
        for instance in 0..self.loads[load].instances.len() as u32 {
            let at = At { model: number, instance };
            match self.state_of(at) {
                Some((_, State::Busy)) => self.apply_now(Act::Free(at))?,
                Some((_, State::Down)) => self.apply_now(Act::Up(at))?,
                _ => {}
            }
        }
        if !self.loads[load].has_usable_instance() {
            self.apply_now(Act::Add(number))?;
        }
        self.flush()?;
        let of = &self.loads[load];
        if of.running() == 0 && !of.is_drained() {
            let Some(wake) = self.next_wake() else { return Err(Finding::Asleep(number)) };
            return self.wake(wake);
        }
        Ok(())
    }

    fn apply_now(&mut self, act: Act) -> Checked {
        self.apply(&Event { at: millis(self.now), act })
    }

    fn close(&mut self) -> Checked {
        let now = self.now;
        match self.loads.last_mut() {
            Some(load) if !load.closed => {
                self.counts.closes += 1;
                load.on_close(now, &mut self.ledger)
            }
            _ => Ok(()),
        }
    }

    fn arrive(&mut self, arrival: &Arrival) -> Checked {
        let (now, mut taken) = (self.now, 0);
        let step = arrival.step.map(|step| SequenceStep {
            correlation: CorrelationId::Number(u64::from(step.sequence)),
            start: step.start,
            end: step.end,
        });
        // What belongs to a sequence follows it; all else goes to the latest load.
        let follows = arrival.step.filter(|step| !step.start);
        let follows = follows.and_then(|step| self.starts.get(step.sequence as usize).copied());
        let load = follows.and_then(|number| self.load_of(number)).unwrap_or(self.loads.len() - 1);
        for id in arrival.first..arrival.first + u64::from(arrival.count) {
            if self.ledger.get(id).state != Fate::Absent {
                continue;
            }
            self.counts.arrivals += 1;
            let of = &mut self.loads[load];
            let content = arrival.content.filter(|_| of.plan.cached);
            if let Some(content) = content
                && self.cache.look_up(id, of.number, content)?
            {
                self.counts.hits += 1;
                continue;
            }
            let shape = ShapeKey(arrival.shape.into());
            let info = RequestInfo {
                size: arrival.size,
                priority: arrival.priority.into(),
                timeout_us: arrival.timeout.map(|ms| u64::from(ms) * 1_000),
                deadline: arrival.deadline.map(Time::from_millis),
                ..RequestInfo::new(RequestId(id), shape, now)
            };
            if !of.on_arrival(&info, step.as_ref(), &mut self.ledger)? {
                self.counts.refused += 1;
                continue;
            }
            let place = of.ordered.as_mut().map_or(0, |ordered| ordered.on_arrival(id));
            let (state, model) = (Fate::Waiting, of.number);
            self.ledger.take(id, Entry { state, model, arrival: now, place, content });
            taken += 1;
            if let Some(step) = arrival.step.filter(|step| step.start) {
                let at = step.sequence as usize;
                self.starts.resize(self.starts.len().max(at + 1), 0);
                self.starts[at] = model;
            }
        }
        self.loads[load].settle_arrivals(taken, now, &mut self.ledger)
    }

    fn done(&mut self, id: u64) -> Checked {
        let entry = self.ledger.get(id);
        let Fate::Running(instance) = entry.state else { return Ok(()) };
        let Some(load) = self.load_of(entry.model) else { return Ok(()) };
        self.counts.dones += 1;
        let now = self.now;
        self.loads[load].on_done(instance, RequestId(id), now, &mut self.ledger)?;
        if let Some(content) = entry.content {
            self.cache.insert(id, entry.model, content);
        }
        Ok(())
    }

    fn load_of(&self, number: u32) -> Option<usize> {
        self.loads.iter().position(|load| load.number == number)
    }

    pub(super) fn state_of(&self, at: At) -> Option<(usize, State)> {
        let load = self.load_of(at.model)?;
        Some((load, self.loads[load].instances.get(at.instance as usize)?.state))
    }
}
