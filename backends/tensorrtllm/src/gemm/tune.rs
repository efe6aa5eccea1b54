//! Choosing algorithms by the clock.

use super::lt::{Gemm, Product, Shape, bucket};
use crate::device::{Device, Event, Stream};
use crate::error::Result;
use crate::tuning::{AlgorithmEntry, Session, fastest, steady};

/// Algorithms of the library's ranking that are tried, of small products more.
const TRIED: usize = 8;
const TRIED_SMALL: usize = 32;
/// Rows of a small product.
const SMALL: usize = 512;
/// How often each is timed, in turns, and runs of one time.
const ROUNDS: usize = 3;
const RUNS: usize = 3;

impl Gemm {
    /// Chooses the algorithm of a product's bucket: the kept one if the library still proposes it and it runs, else the
    /// fastest of its proposals, which is then kept. Each has run when this returns: the code of one that first runs while a
    /// graph is recorded would be loaded then.
    ///
    /// # Safety
    /// As for [`Gemm::run`]; what lies at `out` is overwritten.
    pub unsafe fn tune(
        &mut self,
        device: &Device,
        stream: &Stream,
        p: &Product,
        session: &mut Session<'_>,
    ) -> Result<()> {
        let m = bucket(p.m);
        let key = (m, p.n, p.k, p.kind);
        if self.chosen.contains_key(&key) {
            return Ok(());
        }
        // The proposals for the bucket, so that the same ones come up whichever of its sizes is timed.
        let whole = Shape::new(&Product { m, ..*p })?;
        let shape = Shape::new(p)?;
        let candidates = self.candidates(&whole, if p.m <= SMALL { TRIED_SMALL } else { TRIED })?;
        let kept = session.find(|table| table.algorithm(m, p.n, p.k, p.kind).map(|entry| entry.algorithm));
        if let Some(found) = candidates.iter().find(|c| Some(c.algo.data) == kept) {
            // SAFETY: as the caller promises.
            if unsafe { self.run_with(stream, p, &shape, &found.algo) }.is_ok() {
                self.chosen.insert(key, found.algo);
                return Ok(());
            }
        }
        session.wait();
        let (start, end) = (Event::new(device)?, Event::new(device)?);
        // The first run is not timed: it may load code. Those that cannot run are out.
        let run = candidates.into_iter().map(|candidate| candidate.algo).filter(|algo| {
            // SAFETY: as the caller promises.
            unsafe { self.run_with(stream, p, &shape, algo) }.is_ok()
        });
        let run: Vec<_> = run.collect();
        let mut times = Vec::with_capacity(run.len() * ROUNDS);
        for number in (0..ROUNDS).flat_map(|_| 0..run.len()) {
            start.record(stream)?;
            for _ in 0..RUNS {
                // SAFETY: as above.
                unsafe { self.run_with(stream, p, &shape, &run[number])? };
            }
            end.record(stream)?;
            end.wait()?;
            times.push((number, end.since(&start)? * 1e3 / RUNS as f32));
        }
        let Some((number, microseconds)) = fastest(times.iter().copied()) else { return Ok(()) };
        let algo = run[number];
        self.chosen.insert(key, algo);
        let (n, k, kind) = (p.n, p.k, p.kind);
        session.timed(steady(&times), |table| {
            table.put_algorithm(AlgorithmEntry { m, n, k, kind, algorithm: algo.data, microseconds });
        });
        Ok(())
    }
}
