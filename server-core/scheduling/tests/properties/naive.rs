//! The batching rules written down plainly: a list, walked whole at every question. Slow, and easy to check by eye.

use trireme_scheduling::{Ask, DynamicConfig, Refusal, RequestId, RequestInfo, Room, Scheduler, Time};

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) config: DynamicConfig,
    queue: Vec<RequestInfo>,
    closed: bool,
}

impl Naive {
    pub(crate) fn new(config: DynamicConfig) -> Self {
        Self { config, queue: Vec::new(), closed: false }
    }

    /// How many requests go now.
    fn batch_len(&self, now: Time, room: usize) -> Option<usize> {
        let (max, largest) = (self.config.max_batch_size(), self.config.largest_preferred());
        let delay = self.config.max_queue_delay_ns();
        let over = delay > 0 && now.ns_since(self.queue[0].arrival) >= delay;

        // totals[i]: elements of the first i + 1 requests
        let totals: Vec<u32> =
            (0..self.queue.len()).map(|i| self.queue[..=i].iter().map(|r| r.size).sum()).collect();
        let joins = |i: usize| totals[i] <= max && self.queue[i].shape_key == self.queue[0].shape_key;
        let run = (0..self.queue.len()).take_while(|&i| joins(i)).count();
        let met = (0..run).rev().find(|&i| self.config.is_preferred(totals[i])).map(|i| i + 1);
        let jump = (1..self.queue.len().min(run + 1)).find(|&i| totals[i] > largest);
        let best = met.or(jump);

        let full = (0..run).find(|&i| totals[i] >= largest).map(|i| i + 1);
        let jump_cut = jump.filter(|_| met.is_none());
        let candidates = if over { run } else { jump_cut.or(full).unwrap_or(run) };
        if candidates >= room {
            return Some(room);
        }
        if let (Some(cut), false) = (best, over) {
            return Some(cut);
        }
        let cannot_grow = run < self.queue.len() || full.is_some();
        (cannot_grow || over || delay == 0 || self.closed).then_some(run)
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
        self.queue.push(info);
        Ok(())
    }

    fn on_cancel(&mut self, id: RequestId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|r| r.id != id);
        self.queue.len() < before
    }

    fn close(&mut self) {
        self.closed = true;
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>) {
        let is_over = |r: &RequestInfo| r.deadline.is_some_and(|deadline| deadline <= now);
        let mut gone: Vec<_> = self.queue.extract_if(.., |r| is_over(r)).collect();
        gone.sort_by_key(|r| r.deadline);
        expired.extend(gone.iter().map(|r| r.id));
    }

    fn take_batch(&mut self, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask {
        if self.queue.is_empty() {
            return Ask::empty(self.closed);
        }
        match self.batch_len(now, room.0) {
            Some(count) => {
                batch.extend(self.queue.drain(..count).map(|r| r.id));
                Ask::Batch(count)
            }
            None => Ask::WakeAt(self.queue[0].arrival.after_ns(self.config.max_queue_delay_ns())),
        }
    }

    fn next_deadline(&mut self) -> Option<Time> {
        self.queue.iter().filter_map(|r| r.deadline).min()
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn oldest_arrival(&self) -> Option<Time> {
        self.queue.first().map(|r| r.arrival)
    }
}
