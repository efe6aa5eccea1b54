//! What an engine says, as the outputs of the contract that a configuration has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_sdk::{DataType, Error, Responder, Response, Result, TensorConfig, Verdict};

use super::inputs::Options;
use crate::openai::{AskError, Event, Flow, Output, Receiver, Usage};
use crate::tokenizer::Tokenizer;

/// Outputs that can be given.
pub(super) const KNOWN: &[(&str, DataType)] = &[
    ("output_ids", DataType::Int32),
    ("sequence_length", DataType::Int32),
    ("cum_log_probs", DataType::Fp32),
    ("output_log_probs", DataType::Fp32),
    ("batch_index", DataType::Int32),
    ("sequence_index", DataType::Int32),
    ("num_input_tokens", DataType::Int32),
    ("num_output_tokens", DataType::Int32),
];

/// Outputs of the contract that are only there if a request asks for them, which is refused.
pub(super) const ABSENT: &[&str] = &[
    "context_logits",
    "generation_logits",
    "context_phase_params",
    "kv_cache_alloc_new_blocks",
    "kv_cache_reused_blocks",
    "kv_cache_alloc_total_blocks",
    "arrival_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "acceptance_rate",
    "total_accepted_draft_tokens",
    "total_draft_tokens",
];

/// The outputs that a request is to get.
#[derive(Debug)]
pub(super) struct Wanted {
    outputs: Vec<TensorConfig>,
    batches: bool,
}

impl Wanted {
    /// There is an output to answer with.
    pub(super) fn check(outputs: &[TensorConfig]) -> Result<()> {
        if !outputs.iter().any(|output| output.name == "output_ids") {
            return Err(Error::invalid("a model of token ids needs the output 'output_ids'"));
        }
        Ok(())
    }

    pub(super) fn of(outputs: &[TensorConfig], asked: impl Fn(usize) -> bool, batches: bool) -> Self {
        let wanted = outputs.iter().enumerate().filter(|(number, _)| asked(*number));
        Self { outputs: wanted.map(|(_, output)| output.clone()).collect(), batches }
    }
}

/// All answers to one request.
pub(super) struct Answers {
    prompts: Vec<Vec<u32>>,
    options: Options,
    wanted: Wanted,
    /// `sequences` answers for each prompt.
    answers: Vec<Answer>,
    open: usize,
    responder: Option<Responder>,
    /// Of a model that streams in whole characters.
    tokenizer: Option<Tokenizer>,
}

/// One answer: what is not sent yet, or all of it.
#[derive(Debug, Default)]
struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    /// Tokens and log-probability of all that was answered.
    count: usize,
    cumulative: f32,
}

impl Answers {
    pub(super) fn new(
        prompts: Vec<Vec<u32>>,
        options: Options,
        wanted: Wanted,
        responder: Responder,
        tokenizer: Option<Tokenizer>,
    ) -> Arc<Mutex<Self>> {
        let count = prompts.len() * options.sequences as usize;
        let answers = (0..count).map(|_| Answer::default()).collect();
        let open = prompts.len();
        let responder = Some(responder);
        Arc::new(Mutex::new(Self { prompts, options, wanted, answers, open, responder, tokenizer }))
    }

    fn output(&mut self, row: usize, output: Output) -> Flow {
        let number = row * self.options.sequences as usize + output.index as usize;
        let Some(answer) = self.answers.get_mut(number) else { return Flow::Stop };
        answer.count += output.tokens.len();
        answer.tokens.extend(output.tokens);
        for logprobs in &output.logprobs {
            answer.cumulative += logprobs.logprob;
            answer.logprobs.push(logprobs.logprob);
        }
        let waits = |tokenizer: &Tokenizer| !tokenizer.ends_whole(&answer.tokens);
        let unfinished = answer.tokens.is_empty() || self.tokenizer.as_ref().is_some_and(waits);
        if !self.options.streaming || (unfinished && output.finish.is_none()) {
            return if self.responder.is_some() { Flow::Continue } else { Flow::Stop };
        }
        let response = self.response(number..number + 1);
        let Some(responder) = &mut self.responder else { return Flow::Stop };
        self.answers[number].tokens.clear();
        self.answers[number].logprobs.clear();
        match response.map(|response| responder.send(response)) {
            Ok(Verdict::Continue) => Flow::Continue,
            Ok(Verdict::Pause) => Flow::Pause,
            Ok(Verdict::Cancelled | Verdict::Closed) => Flow::Stop,
            Err(error) => {
                self.fail(error);
                Flow::Stop
            }
        }
    }

    fn end(&mut self, outcome: std::result::Result<Usage, AskError>) {
        if let Err(error) = outcome {
            return self.fail(match error {
                AskError::Invalid(text) => Error::invalid(text),
                AskError::Form(text) => Error::invalid(format!("'guided_decoding_guide': {text}")),
                AskError::Unavailable(text) | AskError::Overloaded(text) => Error::unavailable(text),
                AskError::Cancelled => Error::cancelled("the request was cancelled"),
                AskError::Internal(text) => Error::internal(text),
            });
        }
        self.open = self.open.saturating_sub(1);
        if self.open > 0 {
            return;
        }
        let response = if self.options.streaming { None } else { Some(self.response(0..self.answers.len())) };
        let Some(mut responder) = self.responder.take() else { return };
        responder.computed();
        match response {
            None => responder.close(),
            Some(Ok(response)) => responder.finish(response),
            Some(Err(error)) => responder.fail(error),
        }
    }

    fn fail(&mut self, error: Error) {
        if let Some(responder) = self.responder.take() {
            responder.fail(error);
        }
    }

    /// The outputs of these answers: of one in a stream, of all otherwise.
    fn response(&self, range: std::ops::Range<usize>) -> Result<Response> {
        let sequences = self.options.sequences as usize;
        let answers = &self.answers[range.clone()];
        let prompt = |number: usize| self.prompts[(range.start + number) / sequences].as_slice();
        // A stream has only what is new.
        let with_input = !self.options.exclude_input && !self.options.streaming;
        let line = |number: usize| -> Vec<i32> {
            let input = if with_input { prompt(number) } else { &[] };
            input.iter().chain(&answers[number].tokens).map(|id| *id as i32).collect()
        };
        let lines: Vec<Vec<i32>> = (0..answers.len()).map(line).collect();
        let width = lines.iter().map(Vec::len).max().unwrap_or(0);
        let longest = answers.iter().map(|answer| answer.logprobs.len()).max().unwrap_or(0);
        let beams = if self.options.streaming { 1 } else { sequences };
        let rows = answers.len() / beams;
        let mut response = Response::new();
        for output in &self.wanted.outputs {
            // The batch, the sequences of a prompt, the tokens: a configuration may leave the middle one out.
            let shape = |last: Option<usize>| -> Result<Vec<i64>> {
                let mut shape = Vec::new();
                let mut extra = output.dims.len();
                if self.wanted.batches {
                    shape.push(rows as i64);
                }
                extra -= usize::from(last.is_some()).min(extra);
                match extra {
                    0 if beams == 1 => {}
                    1 => shape.push(beams as i64),
                    _ => {
                        let name = &output.name;
                        let text = format!(
                            "output '{name}' of the configuration has no dimension for {beams} sequences"
                        );
                        return Err(Error::invalid(text));
                    }
                }
                shape.extend(last.map(|last| last as i64));
                Ok(shape)
            };
            let of_answers =
                |value: &dyn Fn(usize) -> i32| (0..answers.len()).map(value).collect::<Vec<i32>>();
            let one = |value: &dyn Fn(usize) -> i32| {
                let rows = (0..rows).map(|row| value(row * beams)).collect::<Vec<i32>>();
                let shape: Vec<i64> = if self.wanted.batches { vec![rows.len() as i64, 1] } else { vec![1] };
                (shape, rows)
            };
            let name = output.name.as_str();
            response = match name {
                "output_ids" => {
                    let padded = lines.iter().flat_map(|line| {
                        let pad = std::iter::repeat_n(self.options.pad_id, width - line.len());
                        line.iter().copied().chain(pad)
                    });
                    response.tensor(name, &shape(Some(width))?, padded.collect::<Vec<i32>>())?
                }
                "sequence_length" => {
                    let lengths = of_answers(&|number| lines[number].len() as i32);
                    response.tensor(name, &shape(None)?, lengths)?
                }
                "cum_log_probs" if self.options.logprobs => {
                    let sums = answers.iter().map(|answer| answer.cumulative).collect::<Vec<f32>>();
                    response.tensor(name, &shape(None)?, sums)?
                }
                "output_log_probs" if self.options.logprobs => {
                    let padded = answers.iter().flat_map(|answer| {
                        let pad = std::iter::repeat_n(0.0, longest - answer.logprobs.len());
                        answer.logprobs.iter().copied().chain(pad)
                    });
                    response.tensor(name, &shape(Some(longest))?, padded.collect::<Vec<f32>>())?
                }
                "batch_index" => {
                    let (shape, rows) = one(&|number| ((range.start + number) / sequences) as i32);
                    response.tensor(name, &shape, rows)?
                }
                "sequence_index" => {
                    let (shape, rows) = one(&|number| ((range.start + number) % sequences) as i32);
                    response.tensor(name, &shape, rows)?
                }
                "num_input_tokens" => {
                    let (shape, rows) = one(&|number| prompt(number).len() as i32);
                    response.tensor(name, &shape, rows)?
                }
                "num_output_tokens" => {
                    let (shape, rows) = one(&|number| answers[number].count as i32);
                    response.tensor(name, &shape, rows)?
                }
                _ => response,
            };
        }
        Ok(response)
    }
}

/// The receiver of one prompt's answers.
pub(super) struct RowReceiver {
    pub(super) answers: Arc<Mutex<Answers>>,
    pub(super) row: usize,
}

impl RowReceiver {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver for RowReceiver {
    fn event(&mut self, event: Event) -> Flow {
        match event {
            Event::Output(output) => self.lock().output(self.row, output),
            Event::End(outcome) => {
                self.lock().end(outcome);
                Flow::Continue
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.lock().responder.as_ref().is_none_or(Responder::is_cancelled)
    }

    fn on_writable(&mut self, call: Box<dyn FnOnce() + Send>) {
        let mut answers = self.lock();
        let Some(responder) = &mut answers.responder else {
            drop(answers);
            return call();
        };
        responder.on_writable(call);
    }
}
