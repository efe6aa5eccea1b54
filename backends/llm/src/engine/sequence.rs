//! One answer on its way.

use std::sync::Arc;

use super::{Finish, Output, Request, TokenLogprobs, Usage};
use crate::executor::{BlockId, Sampled, Slot, SlotSampling};
use crate::grammar::Grammar;
use crate::kv::{BlockHash, block_hash};
use crate::stop::{FinishReason, StopFilter};
use crate::tokenizer::Detokenizer;

/// Urgency, then arrival: the smaller comes first.
pub(super) type Rank = (u64, u64);

/// A request and what its answers share.
pub(super) struct Group {
    pub(super) request: Request,
    pub(super) sequences: Vec<u64>,
    /// Answers that are not over.
    pub(super) left: usize,
    /// Whether the prompt's blocks are filled, so that the other answers find them.
    pub(super) prompt_done: bool,
    /// Whether it has ever had a place.
    pub(super) scheduled: bool,
    pub(super) paused: bool,
    pub(super) usage: Usage,
}

/// One of a request's answers.
pub(super) struct Sequence {
    pub(super) request: u64,
    pub(super) index: u32,
    pub(super) rank: Rank,
    pub(super) prompt: Arc<[u32]>,
    pub(super) generated: Vec<u32>,
    pub(super) sampling: Arc<SlotSampling>,
    pub(super) grammar: Option<Grammar>,
    /// Bad words of more than one token; the others are forbidden by `sampling`.
    pub(super) bad_words: Arc<[Vec<u32>]>,
    /// Most tokens to generate, and the reason to end there.
    pub(super) limit: usize,
    pub(super) at_limit: FinishReason,
    /// Blocks that it may need at most.
    pub(super) max_blocks: usize,
    pub(super) slot: Option<Slot>,
    pub(super) table: Vec<BlockId>,
    /// Positions that submitted steps have filled.
    pub(super) computed: usize,
    /// Tokens that submitted steps will bring.
    pub(super) pending: usize,
    /// Contents of its full blocks, as far as they were needed; the root stands before them.
    pub(super) root: BlockHash,
    pub(super) hashes: Vec<BlockHash>,
    /// Blocks of the table that others can find.
    pub(super) registered: usize,
    /// Whether its slot has sampled a token (or will, in a submitted step), which a decode row can read.
    pub(super) sampled_here: bool,
    /// Waits to be computed again.
    pub(super) preempted: bool,
    /// When its newest token came.
    pub(super) token_ns: Option<u64>,
    /// The step that it last had rows in.
    pub(super) served: u64,
    pub(super) text: Option<(Detokenizer, StopFilter)>,
    /// What was not handed out yet.
    pub(super) out: Output,
    pub(super) first_out: bool,
}

impl Sequence {
    /// Tokens whose values are known.
    pub(super) fn known(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    pub(super) fn token(&self, position: usize) -> u32 {
        match position.checked_sub(self.prompt.len()) {
            None => self.prompt[position],
            Some(i) => self.generated[i],
        }
    }

    /// Whether its next token depends on the values of those before, so that no step may run ahead of them.
    pub(super) fn is_held(&self) -> bool {
        self.grammar.is_some() || !self.bad_words.is_empty()
    }

    /// Tokens that may not come next, as the ends of bad words.
    pub(super) fn forbidden(&self) -> impl Iterator<Item = u32> + '_ {
        let ends_with = |begin: &[u32]| {
            let known = self.known();
            known >= begin.len()
                && begin.iter().rev().enumerate().all(|(back, token)| self.token(known - 1 - back) == *token)
        };
        let completed = self.bad_words.iter().filter_map(|word| word.split_last());
        completed.filter(move |(_, begin)| ends_with(begin)).map(|(last, _)| *last)
    }

    /// Runs, and only its newest token is not read yet.
    pub(super) fn decodes(&self) -> bool {
        self.slot.is_some()
            && (self.pending == 0 || !self.is_held())
            && self.computed + 1 == self.known() + self.pending
            && self.computed >= self.prompt.len()
            && self.generated.len() + self.pending < self.limit
            // After a preemption what was generated is read as a prompt is, until a token comes of it.
            && self.sampled_here
    }

    /// Runs, and has known tokens to read before it can go on.
    pub(super) fn prefills(&self) -> bool {
        self.slot.is_some() && self.pending == 0 && !self.sampled_here && self.computed < self.known()
    }

    /// The contents of its first `n` blocks.
    pub(super) fn chain(&mut self, n: usize, block_tokens: usize) -> &[BlockHash] {
        while self.hashes.len() < n {
            let start = self.hashes.len() * block_tokens;
            let tokens: Vec<u32> = (start..start + block_tokens).map(|p| self.token(p)).collect();
            let parent = self.hashes.last().unwrap_or(&self.root);
            let hash = block_hash(parent, &tokens);
            self.hashes.push(hash);
        }
        &self.hashes[..n]
    }

    /// Adds a token to what goes out.
    pub(super) fn note(&mut self, token: u32, sampled: Sampled) {
        self.out.tokens.push(token);
        if let Some(logprob) = sampled.logprob {
            self.out.logprobs.push(TokenLogprobs { token, logprob, top: sampled.top });
        }
    }

    /// What goes out now.
    pub(super) fn take_output(&mut self, finish: Option<Finish>) -> Output {
        self.first_out = false;
        let fresh = Output { index: self.index, ..Output::default() };
        Output { finish, ..std::mem::replace(&mut self.out, fresh) }
    }
}
