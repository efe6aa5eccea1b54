//! Choosing algorithms by the clock.

use super::lt::{Gemm, Product, Shape, bucket};
use crate::device::{Device, Event, Stream};
use crate::error::Result;
use crate::tuning::{AlgorithmEntry, Table, fastest};

/// Algorithms of the library's ranking that are tried, of small products more, and runs of each.
const TRIED: usize = 8;
const TRIED_SMALL: usize = 32;
/// Rows of a small product.
const SMALL: usize = 512;
const RUNS: usize = 5;

impl Gemm {
    /// Chooses the algorithm of a product's bucket: the table's if the library still proposes it, else the fastest of its
    /// proposals, which the table then gets. Whether something was timed.
    ///
    /// # Safety
    /// As for [`Gemm::run`]; what lies at `out` is overwritten.
    pub unsafe fn tune(
        &mut self,
        device: &Device,
        stream: &Stream,
        p: &Product,
        table: &mut Table,
    ) -> Result<bool> {
        let m = bucket(p.m);
        let key = (m, p.n, p.k, p.kind);
        if self.chosen.contains_key(&key) {
            return Ok(false);
        }
        // The proposals for the bucket, so that the same ones come up whichever of its sizes is timed.
        let whole = Shape::new(&Product { m, ..*p })?;
        let candidates = self.candidates(&whole, if p.m <= SMALL { TRIED_SMALL } else { TRIED })?;
        let kept = table.algorithm(m, p.n, p.k, p.kind).map(|entry| entry.algorithm);
        if let Some(found) = candidates.iter().find(|c| Some(c.algo.data) == kept) {
            self.chosen.insert(key, found.algo);
            return Ok(false);
        }
        let shape = Shape::new(p)?;
        let (start, end) = (Event::new(device)?, Event::new(device)?);
        let mut times = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            // SAFETY: as the caller promises. The first run is not timed: it may load code.
            if unsafe { self.run_with(stream, p, &shape, &candidate.algo) }.is_err() {
                continue;
            }
            start.record(stream)?;
            for _ in 0..RUNS {
                // SAFETY: as above.
                unsafe { self.run_with(stream, p, &shape, &candidate.algo)? };
            }
            end.record(stream)?;
            end.wait()?;
            times.push((candidate.algo, end.since(&start)? / RUNS as f32));
        }
        let Some((algo, ms)) = fastest(times) else { return Ok(false) };
        self.chosen.insert(key, algo);
        let (n, k, kind) = (p.n, p.k, p.kind);
        table.put_algorithm(AlgorithmEntry { m, n, k, kind, algorithm: algo.data, microseconds: ms * 1e3 });
        Ok(true)
    }
}
