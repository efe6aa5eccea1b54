//! An engine for one text at a time, made of a [`DecoderModel`].

mod logits;

use std::ops::ControlFlow;
use std::sync::mpsc;

use super::ask::{Ask, AskError, Event, Flow, Output, Receiver, Usage};
use super::door::Generator;
use crate::generate::DecoderModel;
use crate::grammar::{Grammar, GrammarFactory};
use crate::sampling::{Sampler, SamplingParams, SamplingRequest};
use crate::stop::FinishReason;
use crate::tokenizer::{Detokenizer, Tokenizer};

/// Runs asks on the thread that brings them, one answer after the other.
pub struct OneByOne<'a, M> {
    pub model: &'a mut M,
    pub tokenizer: &'a Tokenizer,
    /// What guided answers are made with.
    pub grammars: &'a GrammarFactory,
}

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
        let mut grammar = ask.guide.as_ref().map(|guide| self.grammars.grammar(guide)).transpose();
        let grammar = grammar
            .as_mut()
            .map_err(|error| AskError::Invalid(format!("the form of the answer: {error}")))?;
        let mut generated = Vec::new();
        let failed = |error: &dyn std::fmt::Display| AskError::Internal(error.to_string());
        let mut sampler = Sampler::new();
        let mut detokenizer = Detokenizer::new(self.tokenizer);
        let mut filter = ask.stop.filter();
        let mut last = None;
        for done in 1.. {
            if receiver.is_cancelled() {
                return Err(AskError::Cancelled);
            }
            let logits = match last {
                None => self.model.prefill(&ask.prompt),
                Some(id) => self.model.step(id),
            };
            let logits = logits.map_err(|error| failed(&error))?;
            // A copy: the model's own logits stay as they are.
            let mut logits = logits.to_vec();
            let mask = grammar.as_mut().map(Grammar::mask).transpose().map_err(|error| failed(&error))?;
            logits::shape(&mut logits, ask, &generated, mask.as_ref());
            let shaped = ask.sampling.logprobs.map(|top| (logits.clone(), top));
            logits::cut(&mut logits, ask);
            let none = || {
                AskError::Internal(
                    "no token can be chosen: the model's output has no number in it".to_owned(),
                )
            };
            let id = sampler.sample(&logits, &sampling, done as u64 - 1).ok_or_else(none)?;
            let mut output = Output { index, ..Output::default() };
            let end =
                ask.stop.at_token(id).filter(|reason| !ask.ignore_eos || *reason != FinishReason::EndOfText);
            match end {
                Some(reason) => output.finish = Some(reason),
                None => {
                    let (text, stopped) = filter.push(&detokenizer.push(id).map_err(|error| failed(&error))?);
                    output.text = text;
                    output.tokens.push(id);
                    output.logprobs.extend(shaped.map(|(shaped, top)| logits::logprobs(&shaped, id, top)));
                    generated.push(id);
                    if let Some(grammar) = grammar.as_mut() {
                        grammar.consume(id).map_err(|error| failed(&error))?;
                        if grammar.is_over() {
                            output.finish = Some(FinishReason::EndOfText);
                        }
                    }
                    if stopped {
                        output.finish = Some(FinishReason::StopString);
                    } else if output.finish.is_none() && done == ask.stop.max_tokens {
                        output.finish = Some(FinishReason::MaxTokens);
                    }
                }
            }
            let over = output.finish;
            if over.is_some_and(|reason| reason != FinishReason::StopString) {
                let (rest, stopped) = filter.push(&detokenizer.finish().map_err(|error| failed(&error))?);
                output.text.push_str(&rest);
                if !stopped {
                    output.text.push_str(&filter.finish());
                }
            }
            if speak(receiver, Event::Output(output)).is_break() && over.is_none() {
                return Err(AskError::Cancelled);
            }
            if over.is_some() {
                return Ok(done);
            }
            last = Some(id);
        }
        Ok(0)
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
