//! The batching rules written down plainly: a list, walked whole at every question. Slow, and easy to check by eye.

use crate::world::{end, rank};
use trireme_scheduling::{
    Ask, DynamicConfig, InstanceId, Refusal, RequestId, RequestInfo, Room, Scheduler, Time,
};

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) config: DynamicConfig,
    /// With the number of the arrival.
    queue: Vec<(u64, RequestInfo)>,
    arrivals: u64,
    /// When it was last asked who is late.
    seen: Time,
    closed: bool,
    /// Nobody waits for company, though requests are taken.
    pub(crate) hurries: bool,
}

impl Naive {
    pub(crate) fn new(config: DynamicConfig) -> Self {
        Self { config, queue: Vec::new(), arrivals: 0, seen: Time::ZERO, closed: false, hurries: false }
    }

    /// How many requests go now.
    fn batch_len(&self, queue: &[RequestInfo], now: Time, room: usize) -> Result<usize, Time> {
        let (max, largest) = (self.config.max_batch_size(), self.config.largest_preferred());
        let delay = self.config.max_queue_delay_ns();

        // totals[i]: elements of the first i + 1 requests
        let totals: Vec<u32> = (0..queue.len()).map(|i| queue[..=i].iter().map(|r| r.size).sum()).collect();
        let joins = |i: usize| totals[i] <= max && queue[i].shape_key == queue[0].shape_key;
        let run = (0..queue.len()).take_while(|&i| joins(i)).count();
        let met = (0..run).rev().find(|&i| self.config.is_preferred(totals[i])).map(|i| i + 1);
        let jump = (1..queue.len().min(run + 1)).find(|&i| totals[i] > largest);
        let best = met.or(jump);

        let full = (0..run).find(|&i| totals[i] >= largest).map(|i| i + 1);
        let jump_cut = jump.filter(|_| met.is_none());
        // The delay is that of the oldest request that could go.
        let oldest = queue[..run.min(room)].iter().map(|r| r.arrival).min().unwrap();
        let over = delay > 0 && now.ns_since(oldest) >= delay;
        let candidates = if over { run } else { jump_cut.or(full).unwrap_or(run) };
        if candidates >= room {
            return Ok(room);
        }
        if let (Some(cut), false) = (best, over) {
            return Ok(cut);
        }
        let cannot_grow = run < queue.len() || full.is_some();
        let goes = cannot_grow || over || delay == 0 || self.closed || self.hurries;
        if goes { Ok(run) } else { Err(oldest.after_ns(delay)) }
    }
}

impl Scheduler for Naive {
    fn on_arrival(&mut self, mut info: RequestInfo) -> Result<(), Refusal> {
        info.size = info.size.max(1);
        let max = self.config.max_batch_size();
        if self.closed {
            return Err(Refusal::Closed);
        }
        if info.size > max {
            return Err(Refusal::TooLarge { size: info.size, max });
        }
        let policies = self.config.policies();
        let level = policies.level_of(info.priority);
        let waiting = self.queue.iter().filter(|(_, r)| policies.level_of(r.priority) == level).count();
        let full = policies.policy_of(level).max_queue_size;
        if full > 0 && waiting >= full as usize {
            return Err(Refusal::QueueFull { max: full });
        }
        self.arrivals += 1;
        self.queue.push((self.arrivals, info));
        Ok(())
    }

    fn on_cancel(&mut self, id: RequestId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|(_, r)| r.id != id);
        self.queue.len() < before
    }

    fn close(&mut self) {
        self.closed = true;
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        let policies = self.config.policies();
        let is_over = |r: &RequestInfo| end(policies, r).is_some_and(|end| end <= now);
        self.seen = now;
        let mut gone: Vec<_> = self.queue.extract_if(.., |(_, r)| is_over(r)).collect();
        gone.sort_by_key(|(number, r)| (end(policies, r), *number));
        expired.extend(gone.iter().map(|(_, r)| r.id));
        // Every level in its order, those on time first.
        self.queue.sort_by_key(|(number, r)| rank(policies, r, *number, now));
    }

    fn take_batch(
        &mut self,
        _instance: InstanceId,
        now: Time,
        room: Room,
        batch: &mut Vec<RequestId>,
    ) -> Ask {
        if self.queue.is_empty() {
            return Ask::empty(self.closed);
        }
        let line: Vec<RequestInfo> = self.queue.iter().map(|(_, r)| *r).collect();
        match self.batch_len(&line, now, room.0) {
            Ok(count) => {
                batch.extend(self.queue.drain(..count).map(|(_, r)| r.id));
                Ask::Batch(count)
            }
            Err(wake) => Ask::WakeAt(wake),
        }
    }

    fn next_deadline(&mut self) -> Option<Time> {
        let policies = self.config.policies();
        let late_at = |r: &RequestInfo| {
            let policy = policies.policy_of(policies.level_of(r.priority));
            policy.timeout_us(r.timeout_us).map(|us| r.arrival.after_us(us))
        };
        let ends = self.queue.iter().filter_map(|(_, r)| end(policies, r));
        ends.chain(self.queue.iter().filter_map(|(_, r)| late_at(r)).filter(|&at| at > self.seen)).min()
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn oldest_arrival(&self) -> Option<Time> {
        self.queue.iter().map(|(_, r)| r.arrival).min()
    }
}
