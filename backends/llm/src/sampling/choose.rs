//! The next token of a slot: rules, log-probabilities, draw.

use super::{Cuts, Sampler, argmax, candidates, rules};
use crate::executor::{SlotSampling, TokenLogprob};

/// What a row's choice depends on besides its logits and rules.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub prompt: &'a [u32],
    pub generated: &'a [u32],
    /// As in [`crate::executor::TokenMask`]; tokens beyond its words are forbidden.
    pub mask: Option<&'a [u32]>,
    /// Index of the new token among the generated ones.
    pub sample: u32,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub token: u32,
    /// If [`SlotSampling::logprobs`] asks for it.
    pub logprob: Option<f32>,
    /// The best tokens, best first; of equals the lower id.
    pub top: Vec<TokenLogprob>,
}

impl Sampler {
    /// The next token of a slot. `logits`, one for each token of the vocabulary, are changed by the rules.
    ///
    /// Log-probabilities are `logit - ln(sum of exp(logit))` over what mask, bias and penalties left. The token is
    /// drawn from `softmax(logit / temperature)` cut by `top_k`, then by `top_p` of what is left, then by `min_p` of
    /// the best one's probability; the random number is a function of (`seed`, `sample`). `None` if no logit is a
    /// number, or every token is forbidden.
    pub fn choose(&mut self, logits: &mut [f32], slot: &SlotSampling, row: &Row<'_>) -> Option<Choice> {
        rules::apply(logits, slot, row, &mut self.counts);
        let best = argmax(logits)?;
        let max = logits[best as usize];
        if max == f32::NEG_INFINITY {
            return None;
        }
        let cuts = Cuts {
            temperature: slot.temperature,
            top_k: slot.top_k as usize,
            top_p: slot.top_p,
            min_p: slot.min_p,
        };
        let token =
            if cuts.is_greedy() { best } else { self.draw(logits, cuts, slot.seed, u64::from(row.sample))? };
        let Some(wanted) = slot.logprobs else {
            return Some(Choice { token, logprob: None, top: Vec::new() });
        };
        let norm = log_sum_exp(logits, max);
        // An infinite logit has all the probability there is.
        let logprob = |logit: f32| match logit {
            f32::INFINITY => 0.0,
            _ if norm.is_finite() => (f64::from(logit) - norm) as f32,
            _ => f32::NEG_INFINITY,
        };
        let mut top = Vec::new();
        if wanted > 0 {
            candidates::fill(&mut self.candidates, logits, wanted as usize);
            // All of them come unsorted.
            self.candidates.sort_unstable_by(candidates::rank);
            top.extend(
                self.candidates.iter().map(|c| TokenLogprob { token: c.id, logprob: logprob(c.logit) }),
            );
        }
        Some(Choice { token, logprob: Some(logprob(logits[token as usize])), top })
    }
}

/// `ln(sum of exp)` of the logits that are numbers, the largest of which is `max`.
fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    let max = f64::from(max);
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|&l| (f64::from(l) - max).exp()).sum();
    max + sum.ln()
}
