//! A response cache in front of the queue, and what its hits ought to be.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::finding::Finding;
use super::random::Random;
use crate::cache::{CacheInput, CacheParameter, CacheRequest};

/// What a request asks for, as plain values: two that are equal may share an answer, and no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Question {
    load: u32,
    inputs: Vec<(usize, usize, usize, usize)>,
    outputs: usize,
    parameter: usize,
}

const DATATYPES: [u32; 2] = [8, 11];
const SHAPES: [&[i64]; 4] = [&[1, 16], &[16, 1], &[16], &[1, 1, 16]];
/// The third is the first once more, in pieces.
const DATA: [&[&[u8]]; 4] = [&[b"one"], &[b"two"], &[b"o", b"ne"], &[b"0three"]];
const OUTPUTS: [&[usize]; 5] = [&[], &[0], &[1], &[0, 1], &[1, 0]];
const PARAMETERS: [&[(&str, CacheParameter<'static>)]; 5] = [
    &[],
    &[("top_k", CacheParameter::Integer(1))],
    &[("top_k", CacheParameter::Integer(2))],
    &[("top_k", CacheParameter::Text("1"))],
    &[("greedy", CacheParameter::Bool(true))],
];

impl Question {
    /// The question behind a number; few enough that many numbers ask the same.
    fn new(load: u32, content: u16) -> Self {
        let mut random = Random::new(u64::from(content));
        let mut pick = |len: usize| random.below(len as u64) as usize;
        let mut inputs: Vec<_> =
            (0..=pick(2)).map(|n| (n, pick(2), pick(SHAPES.len()), pick(DATA.len()))).collect();
        if pick(2) == 0 {
            inputs.reverse();
        }
        Self { load, inputs, outputs: pick(OUTPUTS.len()), parameter: pick(PARAMETERS.len()) }
    }

    fn write_key(&self, key: &mut Vec<u8>) {
        let inputs: Vec<CacheInput<'_, &[u8]>> = self
            .inputs
            .iter()
            .map(|&(index, datatype, shape, data)| CacheInput {
                index: index as u16,
                datatype: DATATYPES[datatype % DATATYPES.len()],
                shape: SHAPES[shape % SHAPES.len()],
                pieces: DATA[data % DATA.len()],
            })
            .collect();

        let request = CacheRequest {
            model: "model",
            version: 1,
            load: u64::from(self.load),
            inputs: &inputs,
            outputs: OUTPUTS[self.outputs % OUTPUTS.len()],
            parameters: PARAMETERS[self.parameter % PARAMETERS.len()],
            correlation: None,
        };
        request.write_key(|bytes| key.extend_from_slice(bytes));
    }

    /// The same question, whatever the order of its parts and the pieces of its tensors.
    fn plain(mut self) -> Self {
        for (.., data) in &mut self.inputs {
            *data = if *data == 2 { 0 } else { *data };
        }
        self.inputs.sort_unstable();
        // The last two lists of outputs are the same set.
        self.outputs = self.outputs.min(3);
        self
    }
}

/// Answers by key, each with the request that it was made for.
#[derive(Debug, Default)]
pub(super) struct Cache {
    by_key: HashMap<Vec<u8>, (u64, Question), FixedState>,
    by_question: HashMap<Question, u64, FixedState>,
    key: Vec<u8>,
}

impl Cache {
    /// Whether the answer is there.
    ///
    /// # Errors
    /// The answer is to another question, or is there and was not found.
    pub(super) fn look_up(&mut self, request: u64, load: u32, content: u16) -> Result<bool, Finding> {
        let question = Question::new(load, content);
        self.key.clear();
        question.write_key(&mut self.key);
        let hit = self.by_key.get(&self.key);
        let question = question.plain();
        match (hit, self.by_question.get(&question)) {
            (Some((of, asked)), _) if *asked != question => Err(Finding::WrongHit { request, of: *of }),
            (None, Some(&of)) => Err(Finding::Missed { request, of }),
            (hit, _) => Ok(hit.is_some()),
        }
    }

    /// The request was answered without an error.
    pub(super) fn insert(&mut self, request: u64, load: u32, content: u16) {
        let question = Question::new(load, content);
        let mut key = Vec::new();
        question.write_key(&mut key);
        let question = question.plain();
        self.by_key.entry(key).or_insert_with(|| (request, question.clone()));
        self.by_question.entry(question).or_insert(request);
    }
}
