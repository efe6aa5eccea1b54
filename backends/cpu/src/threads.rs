//! A small worker pool for regions of a few microseconds.
//!
//! A region is a number of chunks and a function of the chunk's index. The caller works too and returns when all
//! chunks are done. Idle workers spin for a short while, so that the next region of the same forward pass finds them
//! awake, and then sleep. Each thread has a share of the chunks, the same ones in every region of as many, so that it meets
//! again what its own caches hold; who has none left takes those of others, so that a worker that the system has taken off
//! its core delays nobody unless it holds a chunk.
//!
//! ```text
//! word of a thread (u64)   | epoch: 32 bits | end: 16 bits | next chunk: 16 bits |
//! ```
//! Claiming is one `fetch_add` on a word. Whoever gets an index below `end` owns that chunk of that epoch's job, and since
//! the caller waits for all chunks of an epoch before it replaces the job, the job is valid for the owner.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most chunks of one region. The rest of the 16 bits is room for late claims.
pub(crate) const MAX_CHUNKS: usize = 1 << 15;
/// Turns of the waiting loop before a worker sleeps: about 100 microseconds.
const SPINS: u32 = 4_000;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

#[repr(align(128))]
struct Line<T>(T);

/// What a thread reads when a region begins, together on a line of its own.
struct Share {
    word: AtomicU64,
    job: UnsafeCell<Option<Job<'static>>>,
}

struct Shared {
    /// The caller's first.
    shares: Vec<Line<Share>>,
    done: Line<AtomicUsize>,
    sleeping: Line<AtomicUsize>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: every `job` is written by the one caller while no chunk is claimable, and read only by owners of a chunk.
unsafe impl Sync for Shared {}

/// Worker threads of one model. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One region at a time.
    region: Mutex<()>,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller of [`Self::run`] included. Zero means as many as this
    /// process may use (affinity and cgroup limits are respected).
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n.min(256),
        };
        let shared = Arc::new(Shared {
            shares: (0..threads)
                .map(|_| Line(Share { word: AtomicU64::new(0), job: UnsafeCell::new(None) }))
                .collect(),
            done: Line(AtomicUsize::new(0)),
            sleeping: Line(AtomicUsize::new(0)),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::new(), region: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("cpu-worker-{i}");
            pool.workers.push(std::thread::Builder::new().name(name).spawn(move || worker(&shared, i))?);
        }
        Ok(pool)
    }

    /// Threads that work in a region.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` once with each of `0..chunks`, on all threads, and returns when all calls have returned.
    ///
    /// # Panics
    /// If a call panics, with that call's message, after all the others are done; or with more than 32768 chunks.
    pub fn run(&self, chunks: usize, f: impl Fn(usize) + Sync) {
        assert!(chunks <= MAX_CHUNKS, "{chunks} chunks in one region");
        if self.workers.is_empty() || chunks <= 1 {
            return (0..chunks).for_each(f);
        }
        let _one_at_a_time = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let job: Job<'_> = &f;
        // SAFETY: only the lifetime changes. The reference is used by owners of a chunk of this region, and this
        // call does not return (nor unwind) before all chunks are done.
        let job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        let shared = &*self.shared;
        for share in &shared.shares {
            // SAFETY: all chunks of the last region are done and none of this one can be claimed yet.
            unsafe { *share.0.job.get() = Some(job) };
        }
        shared.done.0.store(0, Ordering::Relaxed);
        let threads = shared.shares.len();
        let epoch = shared.epoch(0, Ordering::Relaxed).wrapping_add(1);
        for (i, share) in shared.shares.iter().enumerate() {
            let [first, end] = [i, i + 1].map(|i| (chunks * i / threads) as u64);
            // SeqCst with the counter of sleepers: either the sleeper sees the new epoch or we see the sleeper.
            share.0.word.store(u64::from(epoch) << 32 | end << 16 | first, Ordering::SeqCst);
        }
        if shared.sleeping.0.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut spins = 0u32;
        while shared.done.0.load(Ordering::Acquire) < chunks {
            spins += 1;
            wait_a_turn(spins);
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// [`Self::run`] over `units` of work that are cut into ranges, about `per_thread` ranges for each thread.
    pub(crate) fn run_ranges(
        &self,
        units: usize,
        per_thread: usize,
        f: impl Fn(std::ops::Range<usize>) + Sync,
    ) {
        let pieces = (self.threads() * per_thread).clamp(1, MAX_CHUNKS).min(units.max(1));
        self.run(pieces, |i| f(units * i / pieces..units * (i + 1) / pieces));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker never unwinds: its jobs are fenced.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The epoch of a thread's share.
    fn epoch(&self, thread: usize, order: Ordering) -> u32 {
        (self.shares[thread].0.word.load(order) >> 32) as u32
    }

    /// Claims and runs chunks until none is left, first those of the own share.
    fn work(&self, thread: usize) {
        let threads = self.shares.len();
        for share in (thread..threads).chain(0..thread) {
            let mut ran = 0;
            while let Some(chunk) = self.claim(share) {
                // SAFETY: we own a chunk of the current region, before which all jobs were set to that region's; they stay
                // until we are done.
                let job = unsafe { *self.shares[thread].0.job.get() };
                if let Some(job) = job
                    && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(chunk)))
                {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
                ran += 1;
            }
            if ran > 0 {
                self.done.0.fetch_add(ran, Ordering::Release);
            }
        }
    }

    fn claim(&self, share: usize) -> Option<usize> {
        let word = &self.shares[share].0.word;
        let [mut end, mut next] = parts(word.load(Ordering::Relaxed));
        // A share that is empty is not written to: its line stays with its owner.
        if next < end {
            [end, next] = parts(word.fetch_add(1, Ordering::AcqRel));
        }
        (next < end).then_some(next)
    }
}

/// End and next chunk of a word.
fn parts(word: u64) -> [usize; 2] {
    [usize::from((word >> 16) as u16), usize::from(word as u16)]
}

/// One turn of a waiting loop: the core is offered to others now and then.
fn wait_a_turn(turn: u32) {
    if turn.is_multiple_of(256) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

fn worker(shared: &Shared, thread: usize) {
    let mut seen = 0u32;
    let epoch = |order| shared.epoch(thread, order);
    loop {
        let mut spins = 0;
        while epoch(Ordering::Relaxed) == seen {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                wait_a_turn(spins);
                continue;
            }
            let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.sleeping.0.fetch_add(1, Ordering::SeqCst);
            while epoch(Ordering::SeqCst) == seen && !shared.stop.load(Ordering::SeqCst) {
                guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            shared.sleeping.0.fetch_sub(1, Ordering::SeqCst);
        }
        seen = epoch(Ordering::Relaxed);
        shared.work(thread);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_chunk_runs_once() {
        let pool = Pool::new(4).unwrap();
        for round in 0..20_000usize {
            let n = round % 23;
            let calls: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n, |i| {
                calls[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn ranges_cover_all_units() {
        let pool = Pool::new(3).unwrap();
        for units in [0, 1, 2, 7, 1000] {
            let sum = AtomicUsize::new(0);
            pool.run_ranges(units, 4, |r| {
                sum.fetch_add(r.sum::<usize>(), Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), (0..units).sum::<usize>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3).unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(8, |i| assert!(i != 5, "chunk five"))));
        assert!(caught.unwrap_err().downcast_ref::<&str>().unwrap().contains("chunk five"));
        let sum = AtomicUsize::new(0);
        pool.run(8, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }
}
