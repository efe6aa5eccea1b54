//! The rules of sequences written down plainly: lists, searched whole at every question.

use trireme_scheduling::{
    Ask, CorrelationId, DropReason, DynamicConfig, InstanceId, Refusal, RequestId, RequestInfo, Room, Row,
    Scheduler, SequenceStep, Time,
};

use crate::naive::Naive;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) slots: u32,
    pub(crate) idle_ns: u64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Direct { delay_ns: u64, share: f32 },
    Oldest(DynamicConfig),
}

#[derive(Clone, Debug)]
struct Request {
    number: u64,
    info: RequestInfo,
    step: SequenceStep,
}

#[derive(Debug)]
struct Run {
    correlation: CorrelationId,
    open: bool,
    at: Option<(u32, InstanceId)>,
    queue: Vec<Request>,
    idle_from: Time,
    timeout: Option<Time>,
    gone: bool,
}

/// A request that the oldest strategy has handed on.
#[derive(Debug)]
struct HandedOn {
    request: Request,
    run: usize,
    at: (u32, InstanceId),
    dispatched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Up,
    Down,
    Retiring,
}

#[derive(Debug)]
struct Instance {
    id: InstanceId,
    state: State,
    batcher: Option<Naive>,
    rows: Vec<Row>,
}

#[derive(Debug)]
pub(crate) struct NaiveSequences {
    plan: Plan,
    instances: Vec<Instance>,
    /// In the order of their START, for ever.
    runs: Vec<Run>,
    handed_on: Vec<HandedOn>,
    /// Slots whose request was done or left, in that order; they are served first.
    let_go: Vec<(u32, InstanceId)>,
    arrivals: u64,
    expired: Vec<RequestId>,
    dropped: Vec<(RequestId, DropReason)>,
    closed: bool,
}

impl NaiveSequences {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            instances: Vec::new(),
            runs: Vec::new(),
            handed_on: Vec::new(),
            let_go: Vec::new(),
            arrivals: 0,
            expired: Vec::new(),
            dropped: Vec::new(),
            closed: false,
        }
    }

    fn is_oldest(&self) -> bool {
        matches!(self.plan.kind, Kind::Oldest(_))
    }

    /// Every request that no instance has.
    fn waiting(&self) -> impl Iterator<Item = &Request> {
        let handed_on = self.handed_on.iter().filter(|one| !one.dispatched).map(|one| &one.request);
        self.runs.iter().flat_map(|run| &run.queue).chain(handed_on)
    }

    fn held(&self, at: (u32, InstanceId)) -> bool {
        self.handed_on.iter().any(|one| one.at == at)
    }

    fn run_at(&self, at: (u32, InstanceId)) -> Option<usize> {
        self.runs.iter().position(|run| !run.gone && run.at == Some(at))
    }

    fn due(&self, run: &Run) -> Option<Time> {
        match run.at {
            _ if run.gone => None,
            Some(_) => run.open.then(|| run.idle_from.after_ns(self.plan.idle_ns)),
            None => run.timeout,
        }
    }

    fn settle(&mut self, now: Time) {
        loop {
            let deadline = self
                .waiting()
                .filter_map(|request| Some((request.info.deadline?, request.number, request.info.id)))
                .min();
            let alarm = (0..self.runs.len()).filter_map(|n| Some((self.due(&self.runs[n])?, n))).min();
            let time = deadline.map(|(time, ..)| time).into_iter().chain(alarm.map(|(time, _)| time)).min();
            let Some(time) = time.filter(|&time| time <= now) else { break };
            match (deadline, alarm) {
                (Some((at, _, id)), _) if at == time => {
                    self.expired.push(id);
                    self.cut(id, DropReason::SequenceExpired);
                }
                (_, Some((_, n))) if self.runs[n].at.is_some() => self.runs[n].open = false,
                (_, Some((_, n))) => self.give_up(n, DropReason::SequenceExpired),
                _ => unreachable!(),
            }
            self.place(time);
        }
        self.place(now);
    }

    /// Ends what is over, gives free slots away and hands requests on, until nothing changes.
    fn place(&mut self, now: Time) {
        while self.end_one() || self.promote_one(now) || self.hand_on_one(now) {}
        self.let_go.clear();
    }

    fn end_one(&mut self) -> bool {
        let over = (0..self.runs.len()).find(|&n| {
            let run = &self.runs[n];
            let at = run.at.filter(|_| !run.gone && !run.open && run.queue.is_empty());
            at.is_some_and(|at| !self.held(at))
        });
        over.is_some_and(|n| {
            self.runs[n].gone = true;
            true
        })
    }

    fn promote_one(&mut self, now: Time) -> bool {
        let up = self.instances.iter().filter(|instance| instance.state == State::Up);
        let slots = up.flat_map(|instance| (0..self.plan.slots).map(move |slot| (slot, instance.id)));
        let free = slots.filter(|&at| self.run_at(at).is_none()).min();
        let next = self.runs.iter().position(|run| !run.gone && run.at.is_none());
        let (Some(at), Some(n)) = (free, next) else { return false };
        self.runs[n].at = Some(at);
        self.runs[n].timeout = None;
        self.runs[n].idle_from = self.runs[n].idle_from.max(now);
        true
    }

    fn hand_on_one(&mut self, now: Time) -> bool {
        if !self.is_oldest() {
            return false;
        }
        let may = |run: &&Run| run.at.is_some_and(|at| !run.gone && !run.queue.is_empty() && !self.held(at));
        let first = self.let_go.iter().find_map(|at| self.run_at(*at).filter(|&n| may(&&self.runs[n])));
        let Some(n) = first.or_else(|| self.runs.iter().position(|run| may(&run))) else { return false };
        let at = self.runs[n].at.unwrap();
        let request = self.runs[n].queue.remove(0);
        self.runs[n].gone = request.step.end;
        let info = RequestInfo::new(request.info.id, request.info.shape_key, now);
        let instance = self.instances.iter_mut().find(|instance| instance.id == at.1).unwrap();
        instance.batcher.as_mut().unwrap().on_arrival(info).unwrap();
        self.handed_on.push(HandedOn { request, run: n, at, dispatched: false });
        true
    }

    /// A request leaves early.
    fn cut(&mut self, id: RequestId, reason: DropReason) {
        let position = |run: &Run| run.queue.iter().position(|request| request.info.id == id);
        if let Some(n) = self.runs.iter().position(|run| position(run).is_some()) {
            let at = position(&self.runs[n]).unwrap();
            self.runs[n].queue.remove(at);
            if self.runs[n].at.is_none() {
                self.give_up(n, reason);
            } else {
                self.end_at(n, at, reason);
            }
        } else if let Some(n) = self.handed_on.iter().position(|one| one.request.info.id == id) {
            let one = self.handed_on.remove(n);
            self.let_go.push(one.at);
            self.recall(&one);
            if !self.runs[one.run].gone {
                self.end_at(one.run, 0, reason);
            }
        }
    }

    fn recall(&mut self, one: &HandedOn) {
        let instance = self.instances.iter_mut().find(|instance| instance.id == one.at.1).unwrap();
        instance.batcher.as_mut().unwrap().on_cancel(one.request.info.id);
    }

    fn end_at(&mut self, n: usize, at: usize, reason: DropReason) {
        let behind = self.runs[n].queue.split_off(at);
        self.dropped.extend(behind.iter().map(|request| (request.info.id, reason)));
        self.runs[n].open = false;
    }

    fn give_up(&mut self, n: usize, reason: DropReason) {
        self.end_at(n, 0, reason);
        self.runs[n].gone = true;
    }
}

impl Scheduler for NaiveSequences {
    fn on_arrival(&mut self, _info: RequestInfo) -> Result<(), Refusal> {
        Err(Refusal::NoCorrelationId)
    }

    fn on_sequence_arrival(&mut self, info: RequestInfo, step: SequenceStep) -> Result<(), Refusal> {
        self.settle(info.arrival);
        if info.size > 1 {
            return Err(Refusal::NotBatchOne { size: info.size });
        }
        if self.closed && step.start {
            return Err(Refusal::Closed);
        }
        let of = |run: &Run| run.open && !run.gone;
        let known = (0..self.runs.len())
            .rev()
            .find(|&n| of(&self.runs[n]) && self.runs[n].correlation == step.correlation);
        if known.is_none() && !step.start {
            return Err(Refusal::NotStarted);
        }
        let n = known.unwrap_or_else(|| {
            self.runs.push(Run {
                correlation: step.correlation.clone(),
                open: true,
                at: None,
                queue: Vec::new(),
                idle_from: info.arrival,
                timeout: None,
                gone: false,
            });
            self.runs.len() - 1
        });
        let run = &mut self.runs[n];
        run.idle_from = info.arrival;
        if run.at.is_none() {
            let timeout = info.timeout_us.filter(|&us| us > 0).map(|us| info.arrival.after_us(us));
            run.timeout = run.timeout.into_iter().chain(timeout).min();
        }
        run.open = !step.end;
        run.queue.push(Request { number: self.arrivals, info, step });
        self.arrivals += 1;
        self.place(info.arrival);
        Ok(())
    }

    fn on_cancel(&mut self, id: RequestId) -> bool {
        let waits = self.waiting().any(|request| request.info.id == id);
        if waits {
            self.cut(id, DropReason::SequenceCancelled);
        }
        waits
    }

    fn on_request_done(&mut self, id: RequestId) {
        let of = |one: &mut HandedOn| one.request.info.id == id;
        self.let_go.extend(self.handed_on.extract_if(.., of).map(|one| one.at));
    }

    fn close(&mut self) {
        self.closed = true;
        for batcher in self.instances.iter_mut().filter_map(|instance| instance.batcher.as_mut()) {
            batcher.hurries = true;
        }
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        self.settle(now);
        expired.append(&mut self.expired);
    }

    fn take_batch(&mut self, instance: InstanceId, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask {
        let over = self.closed && self.pending() == 0 && self.runs.iter().all(|run| run.gone);
        let me = self.instances.iter().position(|one| one.id == instance).unwrap();
        if let Some(batcher) = &mut self.instances[me].batcher {
            let ask = batcher.take_batch(instance, now, room, batch);
            if ask == Ask::Idle {
                return Ask::empty(over);
            }
            if let Ask::Batch(len) = ask {
                self.instances[me].rows.clear();
                for id in &batch[batch.len() - len..] {
                    let one = self.handed_on.iter_mut().find(|one| one.request.info.id == *id).unwrap();
                    one.dispatched = true;
                    let (start, end) = (one.request.step.start, one.request.step.end);
                    self.instances[me].rows.push(Row { slot: one.at.0, request: Some(*id), start, end });
                }
            }
            return ask;
        }
        let fronts: Vec<(u32, usize, Request)> = (0..self.plan.slots)
            .filter_map(|slot| {
                let n = self.run_at((slot, instance))?;
                Some((slot, n, self.runs[n].queue.first()?.clone()))
            })
            .collect();
        let Some(last) = fronts.last().map(|(slot, ..)| *slot) else { return Ask::empty(over) };
        let Kind::Direct { delay_ns, share } = self.plan.kind else { unreachable!() };
        let full = fronts.len() as f64 / f64::from(self.plan.slots) >= f64::from(share);
        let until = fronts.iter().map(|(.., request)| request.info.arrival).min().unwrap().after_ns(delay_ns);
        if delay_ns > 0 && !full && fronts.len() < room.0 && !self.closed && until > now {
            return Ask::WakeAt(until);
        }
        let blank = |slot| Row { slot, request: None, start: false, end: false };
        let mut rows: Vec<Row> = (0..=last).map(blank).collect();
        let key = fronts[0].2.info.shape_key;
        for (slot, n, request) in fronts.into_iter().take(room.0) {
            if request.info.shape_key == key {
                self.runs[n].queue.remove(0);
                let (start, end) = (request.step.start, request.step.end);
                rows[slot as usize] = Row { slot, request: Some(request.info.id), start, end };
                batch.push(request.info.id);
            }
        }
        self.place(now);
        let len = rows.iter().filter(|row| row.request.is_some()).count();
        self.instances[me].rows = rows;
        Ask::Batch(len)
    }

    fn next_deadline(&mut self) -> Option<Time> {
        let deadlines = self.waiting().filter_map(|request| request.info.deadline);
        deadlines.chain(self.runs.iter().filter_map(|run| self.due(run))).min()
    }

    fn pending(&self) -> usize {
        self.waiting().count()
    }

    fn oldest_arrival(&self) -> Option<Time> {
        self.waiting().map(|request| request.info.arrival).min()
    }

    fn is_bound(&self) -> bool {
        true
    }

    fn rows(&self, instance: InstanceId) -> &[Row] {
        self.instances.iter().find(|one| one.id == instance).map_or(&[], |one| &one.rows)
    }

    fn open_sequences(&self) -> usize {
        self.runs.iter().filter(|run| run.open && !run.gone).count()
    }

    fn take_dropped(&mut self, dropped: &mut Vec<(RequestId, DropReason)>) {
        dropped.append(&mut self.dropped);
    }

    fn on_instance_added(&mut self, id: InstanceId) {
        let mut batcher = match &self.plan.kind {
            Kind::Direct { .. } => None,
            Kind::Oldest(config) => Some(Naive::new(config.clone())),
        };
        if let Some(batcher) = &mut batcher {
            batcher.hurries = self.closed;
        }
        self.instances.push(Instance { id, state: State::Up, batcher, rows: Vec::new() });
    }

    fn on_instance_up(&mut self, id: InstanceId) {
        let instance = self.instances.iter_mut().find(|one| one.id == id).unwrap();
        if instance.state == State::Down {
            instance.state = State::Up;
        }
    }

    fn on_instance_down(&mut self, id: InstanceId) {
        let instance = self.instances.iter_mut().find(|one| one.id == id).unwrap();
        if instance.state == State::Up {
            instance.state = State::Down;
        }
        for slot in 0..self.plan.slots {
            let lost = |one: &HandedOn| one.at == (slot, id) && !one.dispatched;
            if let Some(n) = self.handed_on.iter().position(lost) {
                let one = self.handed_on.remove(n);
                self.recall(&one);
                self.dropped.push((one.request.info.id, DropReason::InstanceLost));
            }
            if let Some(n) = self.run_at((slot, id)) {
                self.give_up(n, DropReason::InstanceLost);
            }
        }
    }

    fn on_instance_retired(&mut self, id: InstanceId) {
        self.instances.iter_mut().find(|one| one.id == id).unwrap().state = State::Retiring;
    }

    fn holds(&self, instance: InstanceId) -> bool {
        (0..self.plan.slots)
            .any(|slot| self.held((slot, instance)) || self.run_at((slot, instance)).is_some())
    }
}
