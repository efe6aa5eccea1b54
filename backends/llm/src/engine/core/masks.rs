//! Which tokens may come next, where the answer so far decides it.

use super::plan::Packing;
use super::{Core, RequestError};
use crate::executor::TokenMask;

impl Core {
    /// Adds the mask of a sequence's next token to the step, if it needs one. False if its request has failed: then it
    /// gets no row.
    pub(super) fn pack_mask(&mut self, id: u64, packing: &mut Packing) -> bool {
        let vocab = self.info.vocab_size;
        let Some(s) = self.sequences.get_mut(&id) else { return false };
        let Some(slot) = s.slot else { return false };
        if !s.is_held() {
            return true;
        }
        let mut words = match &mut s.grammar {
            None => Vec::new(),
            Some(grammar) => match grammar.mask() {
                Ok(mask) => mask.words().iter().copied().take(vocab.div_ceil(32)).collect(),
                Err(error) => {
                    packing.failed.push((s.request, RequestError::Internal(error.to_string())));
                    return false;
                }
            },
        };
        let is_guided = !words.is_empty();
        let mut is_held = is_guided;
        words.resize(vocab.div_ceil(32), if is_guided { 0 } else { u32::MAX });
        for token in s.forbidden() {
            words[token as usize / 32] &= !(1 << (token % 32));
            is_held = true;
        }
        if is_held {
            packing.step.masks.push(TokenMask { slot, words: words.into() });
        }
        true
    }
}
