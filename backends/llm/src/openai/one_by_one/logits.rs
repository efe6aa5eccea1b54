//! What a request does to the logits of a token before one is chosen: mask, bias, `min_tokens`, penalties, `min_p`.

use std::collections::HashMap;

use crate::grammar::Mask;
use crate::openai::{Ask, TokenLogprobs};

/// Changes `logits` by the rules of a request.
pub(super) fn shape(logits: &mut [f32], ask: &Ask, generated: &[u32], mask: Option<&Mask>) {
    let rules = &ask.sampling;
    if let Some(mask) = mask {
        let words = mask.words().iter().chain(std::iter::repeat(&0));
        for (chunk, word) in logits.chunks_mut(32).zip(words) {
            let forbidden = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
            forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
    for (token, bias) in &rules.logit_bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += bias;
        }
    }
    // A grammar that ends must be able to.
    if generated.len() < rules.min_tokens && mask.is_none() {
        for token in ask.stop.eos_ids.iter().chain(&ask.stop.stop_ids) {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    if rules.repetition_penalty != 1.0 {
        for token in counts(ask.prompt.iter().chain(generated)).into_keys() {
            if let Some(logit) = logits.get_mut(token as usize) {
                let by = rules.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / by } else { *logit * by };
            }
        }
    }
    if rules.presence_penalty != 0.0 || rules.frequency_penalty != 0.0 {
        for (token, count) in counts(generated.iter()) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= rules.presence_penalty + rules.frequency_penalty * count as f32;
            }
        }
    }
}

/// Leaves out tokens whose probability is below a share of the best one's.
pub(super) fn cut(logits: &mut [f32], ask: &Ask) {
    let (share, temperature) = (ask.sampling.min_p, ask.sampling.temperature);
    if share > 0.0 && temperature > 0.0 {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = best + share.ln() * temperature;
        logits.iter_mut().filter(|logit| **logit < least).for_each(|logit| *logit = f32::NEG_INFINITY);
    }
}

fn counts<'a>(tokens: impl Iterator<Item = &'a u32>) -> HashMap<u32, u32> {
    let mut counts = HashMap::new();
    tokens.for_each(|token| *counts.entry(*token).or_insert(0) += 1);
    counts
}

/// The log-probability of `token` and those of the `top` best, best first, the lower id first of equals.
pub(super) fn logprobs(logits: &[f32], token: u32, top: u32) -> TokenLogprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    let of = |logit: f32| (f64::from(logit - max) - sum.ln()) as f32;
    let own = logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| of(*logit));
    let mut all: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    let better = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let top = (top as usize).min(all.len());
    if top > 0 && top < all.len() {
        all.select_nth_unstable_by(top - 1, better);
    }
    all.truncate(top);
    all.sort_by(better);
    TokenLogprobs { token, logprob: own, top: all.into_iter().map(|(id, logit)| (id, of(logit))).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::openai::Sampling;
    use crate::stop::StopRules;

    fn ask(sampling: Sampling) -> Ask {
        Ask {
            prompt: vec![1],
            sampling,
            stop: StopRules::new(&[3], 9).unwrap(),
            ignore_eos: false,
            guide: None,
            n: 1,
            priority: 0,
            deadline_ns: None,
            stream: false,
        }
    }

    fn shaped(sampling: Sampling, generated: &[u32]) -> Vec<f32> {
        let mut logits = vec![1.0, 2.0, -1.0, 4.0];
        let ask = ask(sampling);
        shape(&mut logits, &ask, generated, None);
        cut(&mut logits, &ask);
        logits
    }

    #[test]
    fn each_rule_does_what_it_says() {
        let none = f32::NEG_INFINITY;
        let plain = Sampling::default();
        assert_eq!(shaped(plain.clone(), &[0]), [1.0, 2.0, -1.0, 4.0]);
        let bias = Sampling { logit_bias: vec![(0, 10.0), (99, 1.0)], ..plain.clone() };
        assert_eq!(shaped(bias, &[]), [11.0, 2.0, -1.0, 4.0]);
        assert_eq!(shaped(Sampling { min_tokens: 2, ..plain.clone() }, &[0]), [1.0, 2.0, -1.0, none]);
        assert_eq!(shaped(Sampling { min_tokens: 2, ..plain.clone() }, &[0, 0]), [1.0, 2.0, -1.0, 4.0]);
        // Prompt and answer: tokens 1 and 2.
        let repetition = Sampling { repetition_penalty: 2.0, ..plain.clone() };
        assert_eq!(shaped(repetition, &[2, 2]), [1.0, 1.0, -2.0, 4.0]);
        let both = Sampling { presence_penalty: 0.5, frequency_penalty: 1.0, ..plain.clone() };
        assert_eq!(shaped(both, &[0, 0, 2]), [-1.5, 2.0, -2.5, 4.0]);
        // e^-2 is 0.135.
        assert_eq!(shaped(Sampling { min_p: 0.13, ..plain }, &[]), [none, 2.0, none, 4.0]);
    }

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let found = logprobs(&[0.0, (3.0f32).ln(), f32::NEG_INFINITY, 0.0], 3, 2);
        assert!((found.logprob - (0.2f32).ln()).abs() < 1e-6);
        assert_eq!(found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 0]);
        assert!((found.top[0].1 - (0.6f32).ln()).abs() < 1e-6);
        assert_eq!(logprobs(&[1.0], 0, 9).top, [(0, 0.0)]);
    }
}
