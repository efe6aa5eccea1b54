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
                    let text = format!("the form of the answer: {error}");
                    packing.failed.push((s.request, RequestError::Invalid(text)));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::engine::{EngineOptions, Event, Request};
    use crate::executor::{ExecutorInfo, KvLayout, Ledger, Sampled, StepDiff, StepId, StepOutput};
    use crate::stop::StopRules;

    /// A request that failed at its first mask took the news with it that its slot had been another's: the executor then
    /// refused the next to come there, and the engine with it.
    #[test]
    fn a_slot_whose_next_owner_fails_at_once_is_free_for_the_one_after() {
        let info = ExecutorInfo {
            vocab_size: 128,
            max_context: 32,
            max_slots: 1,
            max_step_tokens: 16,
            max_steps_in_flight: 1,
            kv: KvLayout { block_tokens: 4, num_blocks: 8, block_bytes: 1, dtype: "float32" },
        };
        let mut ledger = Ledger::new(&info);
        let mut core = Core::new(info, EngineOptions::new(Arc::new(|| 0))).unwrap();
        let ask =
            |grammar| Request { grammar, ..Request::new(vec![1, 2, 3], StopRules::new(&[], 1).unwrap()) };
        let run = |core: &mut Core, ledger: &mut Ledger, id: StepId| {
            let step: StepDiff = core.plan(0).unwrap();
            ledger.apply(&step).unwrap();
            core.submitted(id);
            let slot = step.prefill[0].slot;
            let sampled = vec![Sampled { slot, token: Some(7), logprob: None, top: Vec::new() }];
            core.complete(StepOutput { id, sampled, context_logits: Vec::new() }, 0);
        };
        core.submit(1, ask(None), 0).unwrap();
        run(&mut core, &mut ledger, StepId(1));
        core.submit(2, ask(Some(crate::grammar::tests::of_nothing())), 0).unwrap();
        assert!(core.plan(0).is_none());
        let ends = core.take_events();
        assert!(matches!(&ends[..], [.., (2, Event::End(Err(RequestError::Invalid(_))))]), "{ends:?}");
        core.submit(3, ask(None), 0).unwrap();
        run(&mut core, &mut ledger, StepId(2));
        assert_eq!((core.stats().kv.used, core.is_idle()), (0, true));
    }
}
