//! One graph for each bucket of decode rows.

use std::collections::HashMap;

use super::forward::{Net, Rows, Samples};
use crate::device::{Capture, Device, Graph, Stream};
use crate::error::{CudaError, Result};

/// The sizes of decode steps: each up to 16, then in steps that grow. `max` is one of them.
pub(super) fn buckets(max: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..=16).collect();
    for (end, step) in [(128, 8), (256, 16), (512, 32), (usize::MAX, 64)] {
        while let Some(&last) = sizes.last()
            && last < end
            && last < max
        {
            sizes.push(last + step);
        }
    }
    sizes.retain(|&s| s < max);
    sizes.push(max);
    sizes
}

/// The graphs made so far.
pub(super) struct Graphs {
    sizes: Vec<usize>,
    most: usize,
    made: HashMap<usize, Graph>,
}

impl Graphs {
    /// For steps of up to `max` rows, padded to `sizes` or, without any, to the usual ladder; `most` graphs are kept.
    pub(super) fn new(max: usize, sizes: &[usize], most: Option<usize>) -> Self {
        let given = !sizes.is_empty();
        let mut sizes: Vec<usize> = sizes.iter().copied().filter(|s| *s < max).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes.push(max);
        let sizes = if given { sizes } else { buckets(max) };
        Self { sizes, most: most.unwrap_or(usize::MAX), made: HashMap::new() }
    }

    /// The smallest size that holds `rows`.
    pub(super) fn bucket(&self, rows: usize) -> usize {
        let at = self.sizes.partition_point(|&s| s < rows);
        self.sizes.get(at).copied().unwrap_or(rows)
    }

    pub(super) fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The graph of a bucket, recorded now if there is none yet; `None` if no more are kept, or there is no memory for it.
    pub(super) fn get(
        &mut self,
        device: &Device,
        stream: &Stream,
        net: &mut Net,
        rows: &Rows,
        samples: &Samples,
    ) -> Result<Option<&Graph>> {
        if !self.made.contains_key(&rows.count) && self.made.len() < self.most {
            match record(device, stream, net, rows, samples) {
                Ok(graph) => {
                    self.made.insert(rows.count, graph);
                }
                // The driver takes memory of its own for a graph. Those that are there stay, and no more are tried.
                Err(CudaError::Memory(_)) => self.most = self.made.len(),
                Err(error) => return Err(error),
            }
        }
        Ok(self.made.get(&rows.count))
    }
}

fn record(device: &Device, stream: &Stream, net: &mut Net, rows: &Rows, samples: &Samples) -> Result<Graph> {
    let capture = Capture::begin(stream)?;
    decode_step(stream, net, rows, samples)?;
    capture.finish(device)
}

/// All launches of a decode step.
pub(super) fn decode_step(stream: &Stream, net: &mut Net, rows: &Rows, samples: &Samples) -> Result<()> {
    net.embed(stream, rows)?;
    net.layers(stream, rows)?;
    net.logits(stream, 0, rows.count)?;
    net.sample(stream, samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_size_up_to_the_largest() {
        assert_eq!(buckets(4), [1, 2, 3, 4]);
        assert_eq!(buckets(20), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20]);
        let all = buckets(256);
        assert_eq!(all[15..20], [16, 24, 32, 40, 48]);
        assert_eq!(all.last(), Some(&256));
        assert!(all.windows(2).all(|w| w[0] < w[1]));
        let graphs = Graphs::new(256, &[], None);
        for rows in 1..=256 {
            assert!(graphs.bucket(rows) >= rows);
        }
        assert_eq!((graphs.bucket(17), graphs.bucket(129)), (24, 144));
    }

    #[test]
    fn a_profile_gives_its_own_sizes() {
        assert_eq!(Graphs::new(64, &[8, 32, 64, 128], None).sizes(), [8, 32, 64]);
        // A static profile has one.
        assert_eq!(Graphs::new(16, &[16], None).sizes().len(), 1);
    }
}
