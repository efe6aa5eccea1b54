//! An engine for one text at a time, made of a decoder and the loop of [`crate::generate`].

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::mpsc;

use super::ask::{Abilities, Ask, AskError, Event, Flow, Output, Receiver, Usage};
use super::door::Generator;
use crate::generate::{DecoderModel, GenerateError, GenerateRequest, generate};
use crate::sampling::{SamplingParams, SamplingRequest};
use crate::tokenizer::Tokenizer;

/// Runs asks on the thread that brings them, one answer after the other.
pub struct OneByOne<'a, M> {
    pub model: &'a mut M,
    pub tokenizer: &'a Tokenizer,
}

/// What [`OneByOne`] can do: temperature, `top_k`, `top_p`, seeds and stop rules.
pub const ONE_BY_ONE: Abilities = Abilities { rules: false, logprobs: false, guided: false };

impl<M: DecoderModel> Generator for OneByOne<'_, M> {
    fn run(&mut self, ask: Ask, mut receiver: Box<dyn Receiver>) {
        let mut usage = Usage { prompt_tokens: ask.prompt.len(), ..Usage::default() };
        for index in 0..ask.n {
            match self.answer(&ask, index, receiver.as_mut()) {
                Ok(tokens) => usage.completion_tokens += tokens,
                Err(error) => {
                    receiver.event(Event::End(Err(error)));
                    return;
                }
            }
        }
        receiver.event(Event::End(Ok(usage)));
    }
}

impl<M: DecoderModel> OneByOne<'_, M> {
    /// Gives answer `index`; returns its number of tokens.
    fn answer(&mut self, ask: &Ask, index: u32, receiver: &mut dyn Receiver) -> Result<usize, AskError> {
        let sampling = SamplingParams::new(&SamplingRequest {
            temperature: Some(ask.sampling.temperature),
            top_k: Some(ask.sampling.top_k.into()),
            top_p: Some(ask.sampling.top_p),
            random_seed: Some(ask.sampling.seed.wrapping_add(index.into())),
        });
        let sampling = sampling.map_err(|error| AskError::Invalid(error.to_string()))?;
        let wanted = GenerateRequest { prompt: &ask.prompt, sampling, stop: &ask.stop };
        // Both closures look at the receiver; only the second speaks to it.
        let to = RefCell::new(receiver);
        let outcome = generate(
            self.model,
            self.tokenizer,
            &wanted,
            || to.borrow().is_cancelled(),
            |piece| {
                let output = Output { index, text: piece.to_owned(), ..Output::default() };
                speak(*to.borrow_mut(), Event::Output(output))
            },
        );
        let generation = outcome.map_err(|error| match error {
            GenerateError::InvalidArgument(text) => AskError::Invalid(text),
            other => AskError::Internal(other.to_string()),
        })?;
        let receiver = to.into_inner();
        if receiver.is_cancelled() {
            return Err(AskError::Cancelled);
        }
        let output = Output { index, finish: Some(generation.finish), ..Output::default() };
        // A break here changes nothing: the answer is whole.
        let _ = speak(receiver, Event::Output(output));
        Ok(generation.completion_tokens)
    }
}

/// Hands an event over, and waits until the next one is welcome.
fn speak(receiver: &mut dyn Receiver, event: Event) -> ControlFlow<()> {
    match receiver.event(event) {
        Flow::Continue => ControlFlow::Continue(()),
        Flow::Stop => ControlFlow::Break(()),
        Flow::Pause => {
            let (writable, wait) = mpsc::channel();
            receiver.on_writable(Box::new(move || {
                // Nobody listens any more: then nobody waits either.
                let _ = writable.send(());
            }));
            // The server calls back in any case, when the request is cancelled too.
            let _ = wait.recv();
            ControlFlow::Continue(())
        }
    }
}
