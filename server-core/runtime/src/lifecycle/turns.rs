//! Who may change which models now.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::statistics::lock;

/// Operations on one model run one after the other, in the order in which they came; others run beside them.
#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    left: Condvar,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// Those that run or wait, the oldest first, each with the models that it changes.
    operations: Vec<(u64, BTreeSet<String>)>,
}

/// The right to change some models.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Queue {
    /// Whether no older operation changes one of its models.
    fn may_run(&self, ticket: u64) -> bool {
        let Some(at) = self.operations.iter().position(|(one, _)| *one == ticket) else { return true };
        let (_, names) = &self.operations[at];
        self.operations[..at].iter().all(|(_, older)| older.is_disjoint(names))
    }
}

impl Turns {
    /// Waits until no older operation changes one of these models.
    pub(crate) fn enter(&self, names: BTreeSet<String>) -> Turn<'_> {
        let mut queue = lock(&self.queue);
        let ticket = queue.next;
        queue.next += 1;
        queue.operations.push((ticket, names));
        while !queue.may_run(ticket) {
            queue = self.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, ticket }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.queue).operations.retain(|(ticket, _)| *ticket != self.ticket);
        self.turns.left.notify_all();
    }
}

/// A number of things that may be done at once.
pub(crate) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

/// The right to do one of them.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), returned: Condvar::new() }
    }

    pub(crate) fn take(&self) -> Permit<'_> {
        let free = lock(&self.free);
        let mut free =
            self.returned.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn operations_on_one_model_run_in_the_order_in_which_they_came() {
        let mut queue = Queue::default();
        for (ticket, models) in
            [(0, vec!["a"]), (1, vec!["b"]), (2, vec!["a", "b"]), (3, vec!["b"]), (4, vec!["c"])]
        {
            queue.operations.push((ticket, names(&models)));
        }
        let running = |queue: &Queue| (0..5).filter(|ticket| queue.may_run(*ticket)).collect::<Vec<_>>();
        assert_eq!(running(&queue), [0, 1, 4]);
        queue.operations.retain(|(ticket, _)| *ticket != 1);
        assert_eq!(running(&queue), [0, 1, 4], "3 does not pass 2 by, which came before it");
        queue.operations.retain(|(ticket, _)| *ticket != 0);
        assert_eq!(running(&queue), [0, 1, 2, 4]);
    }

    #[test]
    fn turns_and_permits_come_back() {
        let turns = Turns::default();
        drop(turns.enter(names(&["a"])));
        let a = turns.enter(names(&["a"]));
        let b = turns.enter(names(&["b"]));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.enter(names(&["a", "b"]))));
            drop((a, b));
            waiting.join().unwrap();
        });
        let permits = Permits::new(1);
        drop(permits.take());
        drop(permits.take());
    }
}
