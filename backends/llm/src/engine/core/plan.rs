//! What runs in the next step.

use std::collections::BTreeSet;

use super::{Core, Rank, RequestError, StepStats};
use crate::executor::{BlockTableChange, Bucket, DecodeRow, PrefillChunk, Slot, StepDiff, StepId};

/// A step that is being filled.
pub(super) struct Packing {
    pub(super) step: StepDiff,
    pub(super) tokens: usize,
    pub(super) packed: BTreeSet<u64>,
    pub(super) prompts_wait: bool,
    pub(super) prompts_ran: bool,
    /// Requests that cannot go on. They end when the step is packed, since it may have rows of theirs.
    pub(super) failed: Vec<(u64, RequestError)>,
}

impl Core {
    /// The next step, if there is anything to run. It must be submitted, and [`Core::submitted`] called.
    ///
    /// Decode rows come first, those that waited longest before the others; prompts take the rest. A step that had no
    /// room for prompts is followed by one that packs them first, so that neither starves the other.
    pub fn plan(&mut self, now: u64) -> Option<StepDiff> {
        self.expire(now);
        let mut packing = Packing {
            step: StepDiff::default(),
            tokens: 0,
            packed: BTreeSet::new(),
            prompts_wait: false,
            prompts_ran: false,
            failed: Vec::new(),
        };
        if self.prompts_held {
            self.pack_prompts(&mut packing, now);
            self.pack_decodes(&mut packing);
        } else {
            self.pack_decodes(&mut packing);
            self.pack_prompts(&mut packing, now);
        }
        self.prompts_held = packing.prompts_wait && !packing.prompts_ran;
        let Packing { mut step, packed, tokens, failed, .. } = packing;
        if tokens == 0 {
            failed.into_iter().for_each(|(id, error)| self.end(id, error));
            // The executor never hears of those who were admitted and failed at once. It does hear that others had their
            // slots before.
            for admission in &step.admitted {
                if let Some(at) = self.freed.iter().rposition(|slot| *slot == admission.slot) {
                    self.freed.remove(at);
                }
            }
            return None;
        }
        self.steps += 1;
        self.step = StepStats {
            prompts: step.prefill.len(),
            prompt_tokens: step.prefill.iter().map(|chunk| chunk.tokens.len()).sum(),
            decodes: step.decode.len(),
        };
        self.tally.planned(tokens);
        step.freed = std::mem::take(&mut self.freed);
        // Chunks before decode rows, whatever was packed first.
        step.bucket = self.bucket(tokens, packed.len());
        for sequence in &packed {
            // Later steps may read what this one writes.
            self.register(*sequence);
            if let Some(s) = self.sequences.get_mut(sequence) {
                s.served = self.steps;
                if let Some(group) = self.groups.get_mut(&s.request) {
                    group.prompt_done |= s.computed >= s.prompt.len();
                }
            }
        }
        failed.into_iter().for_each(|(id, error)| self.end(id, error));
        Some(step)
    }

    /// The planned step was taken by the executor.
    pub fn submitted(&mut self, id: StepId) {
        let planned = std::mem::take(&mut self.planned);
        self.in_flight.push_back((id, planned));
    }

    fn expire(&mut self, now: u64) {
        while let Some(late) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&late);
            self.end(late.1, RequestError::Deadline);
        }
    }

    fn bucket(&self, tokens: usize, batch: usize) -> Option<Bucket> {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // Packing kept inside the profiles.
        self.options.profiles.cover(size(tokens), size(batch)).ok().flatten()
    }

    /// Rows that one more sequence may have in this step.
    pub(super) fn room(&self, packing: &Packing) -> usize {
        let batch = u32::try_from(packing.packed.len() + 1).unwrap_or(u32::MAX);
        let most = self.options.profiles.max_tokens(batch).unwrap_or(0) as usize;
        self.budget.min(most).saturating_sub(packing.tokens)
    }

    /// Rows that a step may have at most when one sequence has it alone.
    pub(super) fn whole_step(&self) -> usize {
        self.budget.min(self.options.profiles.max_tokens(1).unwrap_or(0) as usize)
    }

    pub(super) fn is_paused(&self, sequence: u64) -> bool {
        let group = self.sequences.get(&sequence).and_then(|s| self.groups.get(&s.request));
        group.is_none_or(|group| group.paused)
    }

    fn pack_decodes(&mut self, packing: &mut Packing) {
        let ready = |&(_, id): &Rank| {
            let s = self.sequences.get(&id)?;
            (s.decodes() && !packing.packed.contains(&id) && !self.is_paused(id))
                .then_some((s.served, s.rank, id))
        };
        let mut ready: Vec<(u64, Rank, u64)> = self.running.iter().filter_map(ready).collect();
        ready.sort_unstable();
        for (_, _, id) in ready {
            if self.room(packing) == 0 {
                break;
            }
            if !self.make_room(id, packing) {
                continue;
            }
            if !self.pack_mask(id, packing) {
                continue;
            }
            let Some(s) = self.sequences.get_mut(&id) else { continue };
            let Some(slot) = s.slot else { continue };
            let row = DecodeRow {
                slot,
                position: s.computed as u32,
                sample: (s.generated.len() + s.pending) as u32,
            };
            s.computed += 1;
            s.pending += 1;
            packing.step.decode.push(row);
            packing.tokens += 1;
            packing.packed.insert(id);
            self.planned.push((slot, id));
        }
    }

    /// Sees to it that a running sequence has a block for its next position. It may be preempted itself instead.
    fn make_room(&mut self, id: u64, packing: &mut Packing) -> bool {
        loop {
            let Some(s) = self.sequences.get_mut(&id) else { return false };
            let Some(slot) = s.slot else { return false };
            if s.computed < s.table.len() * self.info.kv.block_tokens {
                return true;
            }
            if let Some(block) = self.pool.allocate() {
                let first = s.table.len() as u32;
                s.table.push(block);
                packing.step.blocks.push(BlockTableChange { slot, first, blocks: vec![block] });
                return true;
            }
            // The least urgent that has no rows in this step yet.
            let victim = self.running.iter().rev().map(|(_, id)| *id).find(|id| !packing.packed.contains(id));
            match victim {
                Some(victim) => self.preempt(victim),
                None => return false,
            }
            if victim == Some(id) {
                return false;
            }
        }
    }

    fn pack_prompts(&mut self, packing: &mut Packing, now: u64) {
        let reading: Vec<u64> = self.running.iter().map(|(_, id)| *id).collect();
        for id in reading {
            let reads = self.sequences.get(&id).is_some_and(|s| s.prefills());
            if reads && !self.is_paused(id) && !packing.packed.contains(&id) {
                self.pack_chunk(id, packing);
            }
        }
        self.admit(packing, now);
    }

    /// Gives a sequence as many rows of its prompt as there is room for.
    pub(super) fn pack_chunk(&mut self, id: u64, packing: &mut Packing) {
        let (room, whole) = (self.room(packing), self.whole_step());
        let Some(s) = self.sequences.get_mut(&id) else { return };
        let Some(slot) = s.slot else { return };
        let left = s.known() - s.computed;
        if room == 0 || (!self.options.chunked_prefill && room < left.min(whole)) {
            packing.prompts_wait = true;
            return;
        }
        let n = left.min(room);
        if n == left && !self.pack_mask(id, packing) {
            return;
        }
        let Some(s) = self.sequences.get_mut(&id) else { return };
        let tokens: Vec<u32> = (s.computed..s.computed + n).map(|position| s.token(position)).collect();
        let sample = (n == left).then_some(s.generated.len() as u32);
        let start = s.computed as u32;
        s.computed += n;
        if sample.is_some() {
            s.pending += 1;
            s.sampled_here = true;
        }
        let fresh = s.first_out && s.generated.is_empty();
        let request = s.request;
        let context_logits = fresh && self.groups.get(&request).is_some_and(|g| g.request.context_logits);
        packing.step.prefill.push(PrefillChunk { slot, start, tokens, sample, context_logits });
        packing.tokens += n;
        packing.prompts_ran = true;
        packing.packed.insert(id);
        self.planned.push((slot, id));
    }

    /// Makes the full blocks of a sequence known to others.
    pub(super) fn register(&mut self, id: u64) {
        let block_tokens = self.info.kv.block_tokens;
        let Some(s) = self.sequences.get_mut(&id) else { return };
        let shares = self.options.prefix_reuse
            || self.groups.get(&s.request).is_some_and(|group| group.sequences.len() > 1);
        let full = (s.computed.min(s.known()) / block_tokens).min(s.table.len());
        if !shares || full <= s.registered {
            return;
        }
        let from = std::mem::replace(&mut s.registered, full);
        let chain = s.chain(full, block_tokens)[from..].to_vec();
        for (block, hash) in s.table[from..full].iter().zip(chain) {
            self.pool.register(*block, hash);
        }
    }

    /// A slot that nobody has.
    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        self.slots.pop()
    }
}
