//! Choosing algorithms by the clock.

use super::lt::{Gemm, Product, Shape, bucket};
use crate::device::{Device, Event, Stream};
use crate::error::Result;

/// Algorithms of the library's ranking that are tried, of small products more, and runs of each.
const TRIED: usize = 8;
const TRIED_SMALL: usize = 32;
/// Rows of a small product.
const SMALL: usize = 512;
const RUNS: usize = 5;

impl Gemm {
    /// Times the library's candidates for a product and keeps the fastest for its bucket.
    ///
    /// # Safety
    /// As for [`Gemm::run`]; what lies at `out` is overwritten.
    pub unsafe fn tune(&mut self, device: &Device, stream: &Stream, p: &Product) -> Result<()> {
        let key = (bucket(p.m), p.n, p.k, p.kind);
        if self.chosen.contains_key(&key) {
            return Ok(());
        }
        let shape = Shape::new(p)?;
        let (start, end) = (Event::new(device)?, Event::new(device)?);
        let mut best: Option<(f32, _)> = None;
        for candidate in self.candidates(&shape, if p.m <= SMALL { TRIED_SMALL } else { TRIED })? {
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
            let ms = end.since(&start)?;
            if best.is_none_or(|(least, _)| ms < least) {
                best = Some((ms, candidate.algo));
            }
        }
        if let Some((_, algo)) = best {
            self.chosen.insert(key, algo);
        }
        Ok(())
    }
}
