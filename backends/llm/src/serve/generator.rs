//! Asks of the front doors, as requests of the engine.

use std::num::NonZeroU32;
use std::sync::mpsc::Sender;

use crate::engine::{self, Engine, RequestError, RequestHandle, Sink};
use crate::executor::SlotSampling;
use crate::grammar::GrammarFactory;
use crate::openai::{
    Ask, AskError, Event, Flow, Generator, Output, Receiver, Sampling, TokenLogprobs, Usage,
};

/// Hands asks over to an engine and returns at once.
pub(super) struct OnEngine<'a> {
    pub(super) engine: &'a Engine,
    /// `None`: no answer has a form.
    pub(super) grammars: Option<&'a GrammarFactory>,
    /// Tokens between two outputs of a stream.
    pub(super) stream_interval: NonZeroU32,
    /// Kept as long as an ask is on its way.
    pub(super) ticket: &'a Sender<()>,
}

impl Generator for OnEngine<'_> {
    fn run(&mut self, ask: Ask, mut receiver: Box<dyn Receiver>) {
        match self.request(ask) {
            Ok(request) => {
                let sink = Told { receiver, _ticket: self.ticket.clone() };
                self.engine.submit(request, Box::new(sink));
            }
            Err(error) => {
                receiver.event(Event::End(Err(error)));
            }
        }
    }
}

impl OnEngine<'_> {
    fn request(&self, ask: Ask) -> Result<engine::Request, AskError> {
        let form = |what: &dyn std::fmt::Display| AskError::Form(what.to_string());
        let grammar = match (&ask.guide, self.grammars) {
            (None, _) => None,
            (Some(_), None) => return Err(form(&"the model has no tokenizer to keep it with")),
            (Some(guide), Some(grammars)) => Some(grammars.grammar(guide).map_err(|error| form(&error))?),
        };
        Ok(engine::Request {
            prompt: ask.prompt.into(),
            sampling: slot_sampling(ask.sampling),
            stop: ask.stop,
            ignore_eos: ask.ignore_eos,
            bad_words: ask.bad_words,
            grammar,
            n: ask.n,
            priority: ask.priority,
            deadline_ns: ask.deadline_ns,
            stream: ask.stream.then_some(self.stream_interval),
            text: ask.text,
            context_logits: false,
            cache_salt: None,
        })
    }
}

fn slot_sampling(asked: Sampling) -> SlotSampling {
    SlotSampling {
        temperature: asked.temperature,
        top_k: asked.top_k,
        top_p: asked.top_p,
        min_p: asked.min_p,
        repetition_penalty: asked.repetition_penalty,
        presence_penalty: asked.presence_penalty,
        frequency_penalty: asked.frequency_penalty,
        logit_bias: asked.logit_bias,
        min_tokens: u32::try_from(asked.min_tokens).unwrap_or(u32::MAX),
        end_ids: Vec::new(),
        seed: asked.seed,
        logprobs: asked.logprobs,
    }
}

/// A receiver, as the engine knows it.
struct Told {
    receiver: Box<dyn Receiver>,
    _ticket: Sender<()>,
}

impl Sink for Told {
    fn event(&mut self, request: &RequestHandle, event: engine::Event) -> engine::Flow {
        let event = match event {
            engine::Event::Output(output) => Event::Output(told_output(output)),
            engine::Event::End(end) => Event::End(end.map(told_usage).map_err(told_error)),
        };
        match self.receiver.event(event) {
            Flow::Continue => engine::Flow::Continue,
            Flow::Stop => engine::Flow::Stop,
            Flow::Pause => {
                let request = request.clone();
                // It may come at once: the engine hears of it after the pause.
                self.receiver.on_writable(Box::new(move || request.resume()));
                engine::Flow::Pause
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.receiver.is_cancelled()
    }
}

fn told_output(output: engine::Output) -> Output {
    let logprobs = output.logprobs.into_iter().map(|one| TokenLogprobs {
        token: one.token,
        logprob: one.logprob,
        top: one.top.into_iter().map(|top| (top.token, top.logprob)).collect(),
    });
    Output {
        index: output.index,
        tokens: output.tokens,
        text: output.text,
        logprobs: logprobs.collect(),
        finish: output.finish.map(|finish| finish.reason),
    }
}

fn told_usage(usage: engine::Usage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens,
        completion_tokens: usage.completion_tokens,
    }
}

fn told_error(error: RequestError) -> AskError {
    match error {
        RequestError::Invalid(text) => AskError::Invalid(text),
        RequestError::Overloaded { .. } => AskError::Overloaded(error.to_string()),
        RequestError::Stopped(_) => AskError::Unavailable(error.to_string()),
        // The words that clients of Triton know.
        RequestError::Deadline => AskError::Unavailable("Request timeout expired".to_owned()),
        RequestError::Cancelled => AskError::Cancelled,
        RequestError::NoToken { .. } | RequestError::Internal(_) => AskError::Internal(error.to_string()),
    }
}
