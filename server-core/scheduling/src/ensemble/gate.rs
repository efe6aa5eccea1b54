use std::collections::VecDeque;

/// How many runs of each step the requests of one ensemble have in flight together, and who waits for one to end.
///
/// `T` names a run. Every run that was let in leaves once.
#[derive(Debug)]
pub struct Gate<T> {
    /// 0: any number.
    limit: u32,
    steps: Vec<Turnstile<T>>,
}

#[derive(Debug)]
struct Turnstile<T> {
    inside: u32,
    waiting: VecDeque<T>,
}

impl<T> Gate<T> {
    /// A gate for `steps` steps, each with at most `limit` runs in flight; 0 for any number.
    pub fn new(steps: usize, limit: u32) -> Self {
        let turnstile = |_| Turnstile { inside: 0, waiting: VecDeque::new() };
        Self { limit, steps: (0..steps).map(turnstile).collect() }
    }

    /// `run` of `step` wants to start. It comes back if it may; otherwise it waits, first come, first served.
    pub fn enter(&mut self, step: usize, run: T) -> Option<T> {
        let Some(turnstile) = self.steps.get_mut(step) else { return Some(run) };
        if self.limit > 0 && turnstile.inside >= self.limit {
            turnstile.waiting.push_back(run);
            return None;
        }
        turnstile.inside += 1;
        Some(run)
    }

    /// A run of `step` has ended. The one that takes its place is let in and given back.
    pub fn leave(&mut self, step: usize) -> Option<T> {
        let turnstile = self.steps.get_mut(step)?;
        let next = turnstile.waiting.pop_front();
        if next.is_none() {
            turnstile.inside = turnstile.inside.saturating_sub(1);
        }
        next
    }

    /// Takes those that wait and for which `gone` says true out again.
    pub fn withdraw(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for turnstile in &mut self.steps {
            for run in std::mem::take(&mut turnstile.waiting) {
                if gone(&run) { out.push(run) } else { turnstile.waiting.push_back(run) }
            }
        }
        out
    }

    /// How many runs of `step` are in flight, and how many wait.
    pub fn count(&self, step: usize) -> (u32, usize) {
        self.steps.get(step).map_or((0, 0), |one| (one.inside, one.waiting.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_each_step_and_the_first_comes_first() {
        let mut gate = Gate::new(2, 2);
        assert_eq!([1, 2, 3, 4].map(|run| gate.enter(0, run)), [Some(1), Some(2), None, None]);
        assert_eq!(gate.enter(1, 9), Some(9));
        assert_eq!(gate.leave(0), Some(3));
        assert_eq!(gate.count(0), (2, 1));
        assert_eq!(gate.withdraw(|run| *run == 4), [4]);
        assert_eq!((gate.leave(0), gate.leave(0)), (None, None));
        assert_eq!(gate.count(0), (0, 0));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut gate = Gate::new(1, 0);
        assert!((0..1000).all(|run| gate.enter(0, run).is_some()));
    }
}
