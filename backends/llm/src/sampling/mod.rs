//! Choosing the next token from logits.
//!
//! The choice depends on the logits, the parameters and (seed, position) only: neither on what else is in the
//! batch nor on how often the sampler ran before. [`Sampler::choose`] is what a slot's [`SlotSampling`] means, to be
//! called by executors that sample on the CPU and to be matched by those that sample elsewhere.
//!
//! [`SlotSampling`]: crate::executor::SlotSampling

mod candidates;
mod choose;
mod params;
mod philox;
mod rules;

pub use choose::{Choice, Row};
pub use params::{SamplingError, SamplingParams, SamplingRequest};
pub use philox::{philox4x32, uniform};

use candidates::Candidate;

/// Chooses tokens. Holds only scratch memory, so that one sampler may serve many requests.
#[derive(Default)]
pub struct Sampler {
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
    counts: rules::Counts,
}

impl Sampler {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next token's id.
    ///
    /// `logits` has one value per token of the vocabulary. `position` is the index of the new token among the
    /// generated ones, from 0. Tokens of equal logits rank by lower id. Temperature comes first, then top-k, then
    /// top-p over what top-k left. `None` if no logit is a number, so that nothing can be chosen.
    pub fn sample(&mut self, logits: &[f32], params: &SamplingParams, position: u64) -> Option<u32> {
        let cuts = Cuts {
            temperature: params.temperature(),
            top_k: params.top_k(),
            top_p: params.top_p(),
            min_p: 0.0,
        };
        self.draw(logits, cuts, params.seed(), position)
    }

    /// One draw from the distribution that the cuts leave.
    fn draw(&mut self, logits: &[f32], cuts: Cuts, seed: u64, position: u64) -> Option<u32> {
        if cuts.is_greedy() {
            return argmax(logits);
        }
        let max = f64::from(logits[argmax(logits)? as usize]);
        // Infinite logits leave nothing to weigh against each other.
        if !max.is_finite() {
            return argmax(logits);
        }
        candidates::fill(&mut self.candidates, logits, cuts.top_k);
        let scale = 1.0 / f64::from(cuts.temperature);
        let weight = |c: &Candidate| ((f64::from(c.logit) - max) * scale).exp() as f32;
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(weight));
        let mut total: f64 = self.weights.iter().copied().map(f64::from).sum();
        if cuts.top_p < 1.0 {
            let goal = f64::from(cuts.top_p) * total;
            let kept;
            (kept, total) = candidates::nucleus(&mut self.candidates, goal, weight);
            self.candidates.truncate(kept);
            self.weights.clear();
            self.weights.extend(self.candidates.iter().map(weight));
        }
        if cuts.min_p > 0.0 {
            // The best token's weight is 1.
            self.weights.iter_mut().filter(|w| **w < cuts.min_p).for_each(|w| *w = 0.0);
            total = self.weights.iter().copied().map(f64::from).sum();
        }
        let mut left = uniform(seed, position) * total;
        for (candidate, &weight) in self.candidates.iter().zip(&self.weights) {
            left -= f64::from(weight);
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        // Rounding may leave a crumb: it belongs to the last token that has a share at all.
        let last = self.weights.iter().rposition(|&w| w > 0.0)?;
        Some(self.candidates[last].id)
    }
}

/// What is cut off the distribution before a draw.
#[derive(Clone, Copy)]
struct Cuts {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
}

impl Cuts {
    fn is_greedy(self) -> bool {
        self.temperature == 0.0 || self.top_k == 1 || self.top_p == 0.0
    }
}

/// The id of the largest logit, the lowest of equals. Values that are no number never win.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    const CHUNK: usize = 256;
    // The largest first, in lanes that do not wait for each other, then where it is.
    let mut lanes = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = logits.as_chunks::<32>();
    for chunk in chunks.iter().map(|chunk| &chunk[..]).chain([rest]) {
        for (max, logit) in lanes.iter_mut().zip(chunk) {
            *max = if *logit > *max { *logit } else { *max };
        }
    }
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return logits.iter().position(|logit| !logit.is_nan()).map(|id| id as u32);
    }
    let has = |chunk: &[f32]| chunk.iter().fold(false, |found, logit| found | (*logit == max));
    let (at, chunk) = logits.chunks(CHUNK).enumerate().find(|(_, chunk)| has(chunk))?;
    chunk.iter().position(|logit| *logit == max).map(|id| (at * CHUNK + id) as u32)
}

#[cfg(test)]
mod choose_tests;
#[cfg(test)]
mod tests;
