//! What changes a row of logits before anything is drawn: mask, bias, `min_tokens` and penalties, in this order.

use super::{Row, SamplingError};
use crate::executor::SlotSampling;

/// Most tokens whose log-probabilities come with each token.
const MAX_LOGPROBS: u32 = 1024;

/// How often tokens occur; scratch of the size of the vocabulary, empty between calls.
#[derive(Default)]
pub(super) struct Counts {
    of: Vec<u32>,
    /// Tokens whose count is not zero.
    seen: Vec<u32>,
}

impl Counts {
    fn add(&mut self, token: u32) {
        let Some(count) = self.of.get_mut(token as usize) else { return };
        if *count == 0 {
            self.seen.push(token);
        }
        *count += 1;
    }

    /// Counts, hands every token with its count to `each`, and forgets.
    fn drain(&mut self, vocab: usize, tokens: impl Iterator<Item = u32>, mut each: impl FnMut(u32, u32)) {
        self.of.resize(vocab.max(self.of.len()), 0);
        tokens.for_each(|token| self.add(token));
        for token in self.seen.drain(..) {
            let count = std::mem::take(&mut self.of[token as usize]);
            if (token as usize) < vocab {
                each(token, count);
            }
        }
    }
}

/// Changes `logits` by the rules of a slot.
pub(super) fn apply(logits: &mut [f32], rules: &SlotSampling, row: &Row<'_>, counts: &mut Counts) {
    if let Some(words) = row.mask {
        for (chunk, &word) in logits.chunks_mut(32).zip(words.iter().chain(std::iter::repeat(&0))) {
            if word != u32::MAX {
                let forbidden = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
    for &(token, bias) in &rules.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if row.sample < rules.min_tokens {
        for &token in &rules.end_ids {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    let vocab = logits.len();
    if rules.repetition_penalty != 1.0 {
        let penalty = rules.repetition_penalty;
        let all = row.prompt.iter().chain(row.generated).copied();
        counts.drain(vocab, all, |token, _| {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        });
    }
    if rules.presence_penalty != 0.0 || rules.frequency_penalty != 0.0 {
        counts.drain(vocab, row.generated.iter().copied(), |token, count| {
            logits[token as usize] -= rules.presence_penalty + rules.frequency_penalty * count as f32;
        });
    }
}

impl SlotSampling {
    /// Whether the best token is chosen each time.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1 || self.top_p == 0.0
    }

    /// Whether all numbers are in their ranges, for a vocabulary of this size.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let refuse = |name, value, range| Err(SamplingError { name, value, range });
        let at_least_0 = |x: f32| x.is_finite() && x >= 0.0;
        if !at_least_0(self.temperature) {
            return refuse("temperature", self.temperature.to_string(), "a number of at least 0");
        }
        for (name, share) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&share) {
                return refuse(name, share.to_string(), "from 0 to 1");
            }
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            return refuse("repetition_penalty", penalty.to_string(), "a number over 0");
        }
        let penalties =
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)];
        for (name, penalty) in penalties {
            if !penalty.is_finite() {
                return refuse(name, penalty.to_string(), "a finite number");
            }
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocab_size {
                return refuse(
                    "logit_bias",
                    format!("for token {token}"),
                    "for tokens below the vocabulary's size",
                );
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return refuse("logit_bias", bias.to_string(), "finite or negative infinity");
            }
        }
        match self.logprobs {
            Some(n) if n > MAX_LOGPROBS => refuse("logprobs", n.to_string(), "at most 1024"),
            _ => Ok(()),
        }
    }
}
