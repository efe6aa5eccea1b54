//! Who may start.

use std::ops::Bound::{Excluded, Unbounded};

use super::plan::Packing;
use super::{Core, Rank};
use crate::executor::{Admission, BlockTableChange};

impl Core {
    /// Starts waiting sequences, the most urgent first, as far as slots, blocks and rows go. Nobody overtakes one that
    /// waits for room.
    pub(super) fn admit(&mut self, packing: &mut Packing, now: u64) {
        let mut victims = Vec::new();
        let mut next = self.waiting.first().copied();
        while let Some(rank) = next {
            let id = rank.1;
            if victims.contains(&id) || !self.may_start(id) {
                next = self.after(rank);
                continue;
            }
            packing.prompts_wait = true;
            if !self.rows_fit(id, packing) {
                return;
            }
            while !self.start(id, packing, now) {
                match self.makes_way(rank, packing) {
                    Some(victim) => {
                        self.preempt(victim);
                        victims.push(victim);
                    }
                    None => return,
                }
            }
            self.pack_chunk(id, packing);
            next = self.after(rank);
        }
    }

    /// Who waits behind `rank`.
    fn after(&self, rank: Rank) -> Option<Rank> {
        self.waiting.range((Excluded(rank), Unbounded)).next().copied()
    }

    /// Who is computed again later, so that a waiting sequence can start: one that nobody reads, or a less urgent one.
    fn makes_way(&self, rank: Rank, packing: &Packing) -> Option<u64> {
        let mut idle = self.running.iter().rev().filter(|(_, id)| !packing.packed.contains(id));
        let paused = idle.clone().find(|(_, id)| self.is_paused(*id));
        let victim = match paused {
            None if !self.never_evicts() => idle.next().filter(|(urgency, _)| *urgency > rank.0),
            paused => paused,
        };
        victim.map(|(_, id)| *id)
    }

    /// Whether the step has rows left for a beginning.
    fn rows_fit(&mut self, id: u64, packing: &Packing) -> bool {
        let (room, whole, chunked) = (self.room(packing), self.whole_step(), self.options.chunked_prefill);
        let block_tokens = self.info.kv.block_tokens;
        let Some(s) = self.sequences.get_mut(&id) else { return false };
        let known = s.known();
        let (found, _) = self.pool.matching(s.chain((known - 1) / block_tokens, block_tokens));
        room > 0 && (chunked || room >= (known - found * block_tokens).min(whole))
    }

    /// Whether nothing but room is missing.
    fn may_start(&self, id: u64) -> bool {
        let Some(s) = self.sequences.get(&id) else { return false };
        let Some(group) = self.groups.get(&s.request) else { return false };
        // Tokens on their way belong to what is read again; other answers wait for the prompt of the first.
        s.pending == 0 && !group.paused && (s.index == 0 || group.prompt_done)
    }

    /// Moves a sequence into a slot with blocks for all that it has, if there is room.
    fn start(&mut self, id: u64, packing: &mut Packing, now: u64) -> bool {
        let block_tokens = self.info.kv.block_tokens;
        let never_evicts = self.never_evicts();
        let Some(s) = self.sequences.get_mut(&id) else { return false };
        let Some(group) = self.groups.get_mut(&s.request) else { return false };
        let known = s.known();
        // At least one token must be read, and into a block of its own.
        let reusable = if group.request.context_logits { 0 } else { (known - 1) / block_tokens };
        let chain = s.chain(reusable, block_tokens).to_vec();
        let (found, unused) = self.pool.matching(&chain);
        if self.slots.is_empty() {
            return false;
        }
        let has = known.div_ceil(block_tokens);
        let available = self.pool.available();
        let max_blocks = s.max_blocks;
        let fits = if never_evicts {
            let promised: usize = self
                .running
                .iter()
                .filter_map(|(_, id)| self.sequences.get(id))
                .map(|s| s.max_blocks.saturating_sub(s.table.len()))
                .sum();
            max_blocks.max(has) - found + unused + promised <= available
        } else {
            // Each of those that run may need one soon.
            has - found + unused + self.running.len() <= available
        };
        if !fits {
            return false;
        }
        let mut table: Vec<_> = chain[..found].iter().filter_map(|hash| self.pool.acquire(hash)).collect();
        table.extend((found..has).map_while(|_| self.pool.allocate()));
        let (Some(slot), Some(s)) = (self.take_slot(), self.sequences.get_mut(&id)) else {
            self.pool.release(&table);
            return false;
        };
        s.slot = Some(slot);
        s.computed = found * block_tokens;
        s.registered = found;
        self.preempted -= usize::from(std::mem::take(&mut s.preempted));
        self.waiting.remove(&s.rank);
        self.running.insert(s.rank);
        packing.step.admitted.push(Admission {
            slot,
            sampling: s.sampling.clone(),
            prompt: s.prompt.clone(),
            generated: s.generated.as_slice().into(),
        });
        packing.step.blocks.push(BlockTableChange { slot, first: 0, blocks: table.clone() });
        s.table = table;
        let first = s.generated.is_empty() && s.index == 0;
        if let Some(group) = self.groups.get_mut(&s.request) {
            let usage = &mut group.usage;
            usage.new_blocks += has - found;
            usage.reused_blocks += found;
            if first && !std::mem::replace(&mut group.scheduled, true) {
                usage.first_scheduled_ns = now;
                usage.cached_tokens = found * block_tokens;
                self.tally.started(usage);
            }
        }
        true
    }
}
