//! The engine's logic: a pure state machine. Requests and outputs of steps go in, steps and events come out; time is a
//! number. It has no thread, no clock and no lock.

mod admit;
mod masks;
mod outputs;
mod plan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::sequence::{Group, Rank, Sequence};
use super::{EngineOptions, Event, Policy, Request, RequestError, Tally, Usage};
use crate::executor::{BlockId, ExecutorInfo, Slot, StepId};
use crate::kv::{BlockPool, KvStats, root_hash};
use crate::profile::ProfileError;
use crate::stop::FinishReason;
use crate::tokenizer::Detokenizer;

/// Most answers of one request.
const MAX_ANSWERS: u32 = 128;

/// Most bad words of one request; each is looked for before each token.
const MAX_BAD_WORDS: usize = 1024;

/// The rows of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepStats {
    /// Sequences whose prompts are read, and the tokens of these.
    pub prompts: usize,
    pub prompt_tokens: usize,
    /// Sequences that go on by a token.
    pub decodes: usize,
}

/// What an engine holds now. A request counts as often as it has answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Have a place in the executor.
    pub running: usize,
    pub waiting: usize,
    /// Of those that wait: preempted, to be computed again.
    pub preempted: usize,
    /// How many can run at a time.
    pub slots: usize,
    pub kv: KvStats,
    /// Positions of a block.
    pub block_tokens: usize,
    /// The last step; all zero when there is no request.
    pub step: StepStats,
    /// Since the start.
    pub steps: u64,
    pub preemptions: u64,
}

/// Positions that a sequence of an executor may have.
pub(crate) fn capacity(info: &ExecutorInfo) -> usize {
    info.max_context.min(info.kv.num_blocks.saturating_mul(info.kv.block_tokens))
}

/// Decides what runs.
pub struct Core {
    info: ExecutorInfo,
    options: EngineOptions,
    budget: usize,
    pool: BlockPool,
    groups: BTreeMap<u64, Group>,
    /// When requests are late, and which.
    deadlines: BTreeSet<(u64, u64)>,
    sequences: BTreeMap<u64, Sequence>,
    waiting: BTreeSet<Rank>,
    running: BTreeSet<Rank>,
    slots: Vec<Slot>,
    /// Slots whose executor does not know yet that they are free.
    freed: Vec<Slot>,
    in_flight: VecDeque<(StepId, Vec<(Slot, u64)>)>,
    /// Of the step that was planned and not yet submitted.
    planned: Vec<(Slot, u64)>,
    events: Vec<(u64, Event)>,
    next_sequence: u64,
    steps: u64,
    step: StepStats,
    max_running: usize,
    preempted: usize,
    preemptions: u64,
    tally: Tally,
    /// The last step had no room for prompts.
    prompts_held: bool,
}

impl Core {
    /// # Errors
    /// If `max_batch_size` is beyond the shape profiles.
    pub fn new(info: ExecutorInfo, options: EngineOptions) -> Result<Self, ProfileError> {
        if let Some(batch) = options.max_batch_size {
            options.profiles.check_batch(batch)?;
        }
        let budget = options.max_num_tokens.unwrap_or(usize::MAX).min(info.max_step_tokens).max(1);
        let slots = options
            .max_batch_size
            .unwrap_or(usize::MAX)
            .min(info.max_slots)
            .min(options.profiles.max_batch() as usize);
        Ok(Self {
            pool: BlockPool::new(info.kv.num_blocks),
            slots: (0..u32::try_from(slots).unwrap_or(u32::MAX)).rev().map(Slot).collect(),
            info,
            options,
            budget,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            freed: Vec::new(),
            in_flight: VecDeque::new(),
            planned: Vec::new(),
            events: Vec::new(),
            next_sequence: 0,
            steps: 0,
            step: StepStats::default(),
            max_running: slots,
            preempted: 0,
            preemptions: 0,
            tally: Tally::default(),
            prompts_held: false,
        })
    }

    /// Takes a request under a number that no other has.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] and [`RequestError::Overloaded`]. It is then not taken and has no events.
    pub fn submit(&mut self, id: u64, request: Request, now: u64) -> Result<(), RequestError> {
        if let Err(error) = self.check(&request) {
            self.turned_away(&error);
            return Err(error);
        }
        self.tally.taken(request.prompt.len());
        let prompt = Arc::clone(&request.prompt);
        let room = self.capacity() - prompt.len();
        let (limit, at_limit) = if request.stop.max_tokens <= room {
            (request.stop.max_tokens, FinishReason::MaxTokens)
        } else {
            (room, FinishReason::ContextFull)
        };
        let salt = match &request.cache_salt {
            // Only the answers of one request share blocks.
            _ if !self.options.prefix_reuse => format!("request {id}"),
            Some(salt) => format!("salt {salt}"),
            None => String::new(),
        };
        let urgency = if request.priority == 0 { u64::MAX } else { request.priority };
        let bad_words: Arc<[Vec<u32>]> =
            request.bad_words.iter().filter(|word| word.len() > 1).cloned().collect();
        let mut ids = Vec::new();
        for index in 0..request.n {
            let mut sampling = request.sampling.clone();
            // Far apart, so that neighbouring seeds share no answers.
            sampling.seed = sampling.seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            sampling.end_ids = request.stop.stop_ids.clone();
            sampling.end_ids.extend(request.stop.eos_ids.iter().filter(|_| !request.ignore_eos));
            let words = request.bad_words.iter();
            let single = words.filter(|word| word.len() == 1).flatten();
            sampling.logit_bias.extend(single.map(|token| (*token, f32::NEG_INFINITY)));
            if request.grammar.is_some() {
                sampling.min_tokens = 0;
            }
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let text = self.options.tokenizer.as_ref().filter(|_| request.text);
            let max_blocks = (prompt.len() + limit).div_ceil(self.info.kv.block_tokens);
            self.sequences.insert(
                sequence,
                Sequence {
                    request: id,
                    index,
                    rank: (urgency, sequence),
                    prompt: Arc::clone(&prompt),
                    generated: Vec::new(),
                    sampling: Arc::new(sampling),
                    grammar: request.grammar.clone(),
                    bad_words: Arc::clone(&bad_words),
                    limit,
                    at_limit,
                    max_blocks,
                    slot: None,
                    table: Vec::new(),
                    computed: 0,
                    pending: 0,
                    root: root_hash(salt.as_bytes()),
                    hashes: Vec::new(),
                    registered: 0,
                    sampled_here: false,
                    preempted: false,
                    token_ns: None,
                    served: 0,
                    text: text.map(|tokenizer| (Detokenizer::new(tokenizer), request.stop.filter())),
                    out: super::Output { index, ..super::Output::default() },
                    first_out: true,
                },
            );
            self.waiting.insert((urgency, sequence));
            ids.push(sequence);
        }
        let usage = Usage { prompt_tokens: prompt.len(), arrival_ns: now, ..Usage::default() };
        let left = ids.len();
        self.deadlines.extend(request.deadline_ns.map(|deadline| (deadline, id)));
        let group = Group {
            request,
            sequences: ids,
            left,
            prompt_done: false,
            scheduled: false,
            paused: false,
            usage,
        };
        self.groups.insert(id, group);
        Ok(())
    }

    /// Ends a request at once: its blocks are free when this returns.
    pub fn end(&mut self, id: u64, error: RequestError) {
        let Some(group) = self.take_group(id) else { return };
        group.sequences.iter().for_each(|sequence| self.drop_sequence(*sequence));
        self.tally.ended(&error);
        self.events.push((id, Event::End(Err(error))));
    }

    pub(super) fn take_group(&mut self, id: u64) -> Option<Group> {
        let group = self.groups.remove(&id)?;
        if let Some(deadline) = group.request.deadline_ns {
            self.deadlines.remove(&(deadline, id));
        }
        Some(group)
    }

    /// A request was not taken.
    pub(in crate::engine) fn turned_away(&mut self, error: &RequestError) {
        self.tally.ended(error);
    }

    /// Ends all requests.
    pub fn end_all(&mut self, error: &RequestError) {
        let ids: Vec<u64> = self.groups.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, error.clone()));
    }

    /// Computes no more for a request until it is resumed. It keeps its blocks while nobody else needs them.
    pub fn pause(&mut self, id: u64, paused: bool) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.paused = paused;
        }
    }

    /// The earliest deadline of all requests.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Whether there is no request.
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// The submitted step whose output is due next.
    pub fn oldest_step(&self) -> Option<StepId> {
        self.in_flight.front().map(|(id, _)| *id)
    }

    pub fn steps_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn stats(&self) -> CoreStats {
        CoreStats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            preempted: self.preempted,
            slots: self.max_running,
            kv: self.pool.stats(),
            block_tokens: self.info.kv.block_tokens,
            step: if self.is_idle() { StepStats::default() } else { self.step },
            steps: self.steps,
            preemptions: self.preemptions,
        }
    }

    /// What was done since the start.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Positions that a sequence may have.
    fn capacity(&self) -> usize {
        capacity(&self.info)
    }

    fn check(&self, request: &Request) -> Result<(), RequestError> {
        let invalid = |text: String| Err(RequestError::Invalid(text));
        let (n, capacity, vocab) = (request.prompt.len(), self.capacity(), self.info.vocab_size);
        if n == 0 {
            return invalid("the prompt has no tokens".to_owned());
        }
        if n >= capacity {
            return invalid(format!(
                "the prompt has {n} tokens, there is room for {capacity} with the answer"
            ));
        }
        if let Some(id) = request.prompt.iter().find(|&&id| id as usize >= vocab) {
            return invalid(format!("token id {id} is outside the vocabulary of {vocab}"));
        }
        if request.n == 0 || request.n > MAX_ANSWERS {
            return invalid(format!("n is {}, it must be from 1 to {MAX_ANSWERS}", request.n));
        }
        if request.stop.max_tokens == 0 {
            return invalid("max_tokens is 0, it must be at least 1".to_owned());
        }
        if request.text && self.options.tokenizer.is_none() {
            return invalid("text is asked for, but the model has no tokenizer".to_owned());
        }
        if !request.text && request.stop.has_strings() {
            return invalid("stop strings need text output".to_owned());
        }
        let words = request.bad_words.len();
        if words > MAX_BAD_WORDS {
            return invalid(format!("there are {words} bad words, at most {MAX_BAD_WORDS} are allowed"));
        }
        if let Some(id) = request.bad_words.iter().flatten().find(|&&id| id as usize >= vocab) {
            return invalid(format!(
                "a bad word has token id {id}, which is outside the vocabulary of {vocab}"
            ));
        }
        request.sampling.check(vocab).map_err(|error| RequestError::Invalid(error.to_string()))?;
        // Who comes between two steps waits for the next, also where there is a free place.
        let waiting = self.waiting.len().saturating_sub(self.slots.len());
        let limit = self.options.max_waiting;
        if waiting >= limit {
            return Err(RequestError::Overloaded { waiting, limit });
        }
        Ok(())
    }

    /// Takes a sequence out of its slot.
    fn vacate(&mut self, sequence: u64) {
        let Some(s) = self.sequences.get_mut(&sequence) else { return };
        let table: Vec<BlockId> = std::mem::take(&mut s.table);
        (s.computed, s.registered, s.sampled_here) = (0, 0, false);
        if let Some(slot) = s.slot.take() {
            self.freed.push(slot);
            self.slots.push(slot);
        }
        self.running.remove(&s.rank);
        self.pool.release(&table);
    }

    fn preempt(&mut self, sequence: u64) {
        self.vacate(sequence);
        self.preemptions += 1;
        let Some(s) = self.sequences.get_mut(&sequence) else { return };
        s.preempted = true;
        self.preempted += 1;
        if s.first_out {
            s.out.context_logits = None;
        }
        self.waiting.insert(s.rank);
        if let Some(group) = self.groups.get_mut(&s.request) {
            group.usage.preemptions += 1;
        }
    }

    fn drop_sequence(&mut self, sequence: u64) {
        self.vacate(sequence);
        if let Some(s) = self.sequences.remove(&sequence) {
            self.preempted -= usize::from(s.preempted);
            self.waiting.remove(&s.rank);
        }
    }

    fn never_evicts(&self) -> bool {
        self.options.policy == Policy::GuaranteedNoEvict
    }
}
