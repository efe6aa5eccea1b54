//! Whether a thread looks again for a moment before it sleeps.
//!
//! To wake a thread of another CPU costs 5 to 30 µs on either side, which is more than many models compute. Who has found
//! lately that what it waits for comes sooner than that keeps looking for it, for a bounded time. That takes a CPU, so
//! * who waits long does not look: a server that is idle, or gets a request now and then, sleeps;
//! * at most half of the CPUs are taken so by the threads of one kind ([`INSTANCES`], [`READERS`]);
//! * who looks in vain, or is kept from its CPU meanwhile, sleeps for a while: others need the CPU, and may be the very
//!   thread that it waits for. Between threads of one CPU a wake-up is cheap.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use trireme_telemetry::clock::now_ns;

/// Two looks that are so far apart had somebody else on the CPU between them, or the tick of a virtual machine, which
/// takes 20 to 50 µs.
const AWAY_NS: u64 = 5_000;
/// Between these it was no tick.
const KEPT_AWAY_NS: u64 = 100_000;
/// How many times in a row looking may be of no use.
const MAX_VAIN: u32 = 3;
/// For how long nobody looks after that.
const REST_NS: u64 = 5_000_000;
/// Looks between two readings of the clock.
const LOOKS: u32 = 16;

/// Instances that wait for work.
pub(crate) static INSTANCES: Lookouts = Lookouts::new(25_000);
/// Front ends' tasks that wait for an answer.
pub(crate) static READERS: Lookouts = Lookouts::new(10_000);

/// The threads of one kind.
pub(crate) struct Lookouts {
    /// For how long one looks, and how long its waits may be on average.
    limit_ns: u64,
    active: AtomicUsize,
}

/// What is known of the waits for one thing.
pub(crate) struct Wait {
    /// A moving mean.
    mean_ns: AtomicU64,
    /// How many times in a row looking was of no use.
    vain: AtomicU32,
    rest_until_ns: AtomicU64,
}

/// One that looks; another one may when this is dropped.
pub(crate) struct Lookout<'a> {
    all: &'static Lookouts,
    wait: &'a Wait,
    until_ns: u64,
    looked_ns: u64,
    away: bool,
}

impl Default for Wait {
    /// Nothing is known: too long to look.
    fn default() -> Self {
        Self { mean_ns: AtomicU64::new(u64::MAX), vain: AtomicU32::new(0), rest_until_ns: AtomicU64::new(0) }
    }
}

impl Wait {
    /// A wait that is longer counts as this one, so that it is soon forgotten.
    const LONGEST_NS: u64 = 200_000;

    /// Something was waited for so long.
    pub(crate) fn took(&self, ns: u64) {
        let (mean, ns) = (self.mean_ns.load(Relaxed).min(Self::LONGEST_NS), ns.min(Self::LONGEST_NS));
        // Two that count at once may lose one of both: it is a guess anyway.
        self.mean_ns.store(mean - mean / 8 + ns / 8, Relaxed);
    }

    fn looked(&self, now: u64, vain: bool, kept_away: bool) {
        let vain = if vain { self.vain.load(Relaxed) + 1 } else { 0 };
        // Full, so that after the rest once more in vain is enough.
        self.vain.store(vain.min(MAX_VAIN - 1), Relaxed);
        if vain >= MAX_VAIN || kept_away {
            self.rest_until_ns.store(now + REST_NS, Relaxed);
        }
    }
}

impl Lookouts {
    const fn new(limit_ns: u64) -> Self {
        Self { limit_ns, active: AtomicUsize::new(0) }
    }

    /// Begins to look, if what is waited for comes soon as a rule and a CPU can be spared.
    pub(crate) fn begin<'a>(&'static self, wait: &'a Wait) -> Option<Lookout<'a>> {
        if wait.mean_ns.load(Relaxed) > self.limit_ns {
            return None;
        }
        self.begin_at(wait, now_ns(), spare_cpus())
    }

    fn begin_at<'a>(&'static self, wait: &'a Wait, now: u64, spare: usize) -> Option<Lookout<'a>> {
        if now < wait.rest_until_ns.load(Relaxed) {
            return None;
        }
        let before = self.active.fetch_add(1, Relaxed);
        // Takes its count back when it goes, so also if it was one too many.
        let lookout = Lookout { all: self, wait, until_ns: now + self.limit_ns, looked_ns: now, away: false };
        (before < spare).then_some(lookout)
    }
}

impl Lookout<'_> {
    /// Looks a few times; true if it is to go on, because what it looks for is not there and there is time left.
    pub(crate) fn look(&mut self, is_there: impl Fn() -> bool) -> bool {
        for _ in 0..LOOKS {
            if is_there() {
                self.goes_on(now_ns(), true);
                return false;
            }
            std::hint::spin_loop();
        }
        self.goes_on(now_ns(), false)
    }

    fn goes_on(&mut self, now: u64, found: bool) -> bool {
        let away = now.saturating_sub(std::mem::replace(&mut self.looked_ns, now));
        self.away |= away > AWAY_NS;
        let (late, kept_away) = (now >= self.until_ns, away > KEPT_AWAY_NS);
        if found || late || kept_away {
            self.wait.looked(now, !found || self.away, kept_away);
            return false;
        }
        true
    }
}

/// Waits as a task until `is_there`, while it pays to look. Other tasks of the thread have their turn between two looks; if
/// there are such, looking counts as vain.
pub(crate) async fn look_out(all: &'static Lookouts, wait: &Wait, is_there: impl Fn() -> bool) {
    let Some(mut lookout) = all.begin(wait) else { return };
    while lookout.look(&is_there) {
        tokio::task::yield_now().await;
    }
}

impl Drop for Lookout<'_> {
    fn drop(&mut self) {
        self.all.active.fetch_sub(1, Relaxed);
    }
}

fn spare_cpus() -> usize {
    static SPARE: OnceLock<usize> = OnceLock::new();
    *SPARE.get_or_init(|| std::thread::available_parallelism().map_or(0, |cpus| cpus.get() / 2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lookouts() -> &'static Lookouts {
        Box::leak(Box::new(Lookouts::new(50_000)))
    }

    fn pays(wait: &Wait) -> bool {
        wait.mean_ns.load(Relaxed) <= 50_000
    }

    #[test]
    fn only_who_waits_shortly_looks() {
        let wait = Wait::default();
        assert!(!pays(&wait) && lookouts().begin(&wait).is_none(), "nothing is known");
        (0..20).for_each(|_| wait.took(10_000));
        assert!(pays(&wait));
        wait.took(5_000_000);
        assert!(pays(&wait), "once is not a rule");
        wait.took(5_000_000);
        assert!(!pays(&wait));
        (0..20).for_each(|_| wait.took(10_000));
        assert!(pays(&wait), "a long wait is forgotten, however long it was");
        (0..20).for_each(|_| wait.took(5_000_000));
        assert!(!pays(&wait), "200 requests a second");
    }

    #[test]
    fn as_many_look_as_there_are_cpus_to_spare() {
        let (all, wait) = (lookouts(), Wait::default());
        assert!(all.begin_at(&wait, 0, 0).is_none(), "there is one CPU alone");
        let (first, second) = (all.begin_at(&wait, 0, 2), all.begin_at(&wait, 0, 2));
        assert!(first.is_some() && second.is_some());
        assert!(all.begin_at(&wait, 0, 2).is_none());
        drop(first);
        assert!(all.begin_at(&wait, 0, 2).is_some());
    }

    /// Looks from `now` on every 2 µs, until it is found at `found` or the time is over; says when that was.
    fn looks(all: &'static Lookouts, wait: &Wait, mut now: u64, found: u64) -> Option<u64> {
        let mut lookout = all.begin_at(wait, now, 1)?;
        while lookout.goes_on(now, now >= found) {
            now += 2_000;
        }
        Some(now)
    }

    #[test]
    fn who_looks_in_vain_rests() {
        let (all, wait) = (lookouts(), Wait::default());
        assert_eq!(looks(all, &wait, 0, 10_000), Some(10_000));
        for begin in [100_000, 200_000, 300_000] {
            assert_eq!(looks(all, &wait, begin, u64::MAX), Some(begin + 50_000), "no longer than the limit");
        }
        let rested = 350_000 + REST_NS;
        assert_eq!(looks(all, &wait, rested - 1, rested), None);
        assert_eq!(looks(all, &wait, rested, u64::MAX), Some(rested + 50_000), "one is enough now");
        assert_eq!(looks(all, &wait, rested + 60_000, rested), None);
        let again = rested + 50_000 + REST_NS;
        assert_eq!(looks(all, &wait, again, again + 4_000), Some(again + 4_000));
        assert_eq!(looks(all, &wait, again + 10_000, u64::MAX), Some(again + 60_000));
        assert!(looks(all, &wait, again + 70_000, again).is_some(), "what was found counts");
    }

    #[test]
    fn who_shares_its_cpu_with_what_it_waits_for_rests() {
        let (all, wait) = (lookouts(), Wait::default());
        for begin in [0, 20_000, 40_000] {
            let mut lookout = all.begin_at(&wait, begin, 1).unwrap();
            assert!(lookout.goes_on(begin + 1_000, false));
            assert!(!lookout.goes_on(begin + 9_000, true), "there, but only after somebody else ran");
        }
        assert!(all.begin_at(&wait, 60_000, 1).is_none());
    }

    #[test]
    fn who_is_kept_from_the_cpu_for_long_rests_at_once() {
        let (all, wait) = (lookouts(), Wait::default());
        assert!(!all.begin_at(&wait, 0, 1).unwrap().goes_on(101_000, false));
        assert!(all.begin_at(&wait, 101_000 + REST_NS - 1, 1).is_none());
        assert!(all.begin_at(&wait, 101_000 + REST_NS, 1).is_some());
    }

    #[test]
    fn what_is_there_is_found_at_once() {
        let wait = Wait::default();
        assert!(!lookouts().begin_at(&wait, now_ns(), 1).unwrap().look(|| true));
    }
}
