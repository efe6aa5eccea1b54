//! Where the requests of a model come in.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use trireme_sdk::{Error, OpenAiError, Request};

use super::decoder::Shared;
use super::generator::OnEngine;

/// Hands requests over to the model's engine.
pub struct DecoderInstance {
    shared: Arc<Shared>,
    /// Each ask on its way holds a copy of the sender, so that the receiver ends when the last one has.
    tickets: (Sender<()>, Receiver<()>),
}

impl DecoderInstance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tickets: mpsc::channel() }
    }

    /// Takes requests; they are answered later.
    pub fn execute(&mut self, batch: Vec<Request>) {
        batch.into_iter().for_each(|request| self.take(request));
    }

    /// Returns when every request that was taken has its answer.
    pub fn drain(&mut self) {
        let (sender, receiver) = std::mem::replace(&mut self.tickets, mpsc::channel());
        drop(sender);
        // Nothing is ever sent: an error says that nobody holds a ticket any more.
        let _ = receiver.recv();
    }

    fn take(&self, request: Request) {
        let shared = &*self.shared;
        let engine = match shared.engine() {
            Ok(engine) => engine,
            Err(error) if request.openai().is_some() => {
                let error = OpenAiError { status: 503, ..OpenAiError::internal(error.to_string()) };
                return request.into_responder().fail_json(&error);
            }
            Err(error) => return request.fail(error),
        };
        let mut generator = OnEngine {
            engine: &engine,
            grammars: shared.grammars.as_ref(),
            stream_interval: shared.stream_interval,
            ticket: &self.tickets.0,
        };
        match (request.openai().is_some(), &shared.door, &shared.tokens, &shared.text) {
            (true, Some(door), ..) => door.answer(request, &mut generator),
            (false, _, Some(tokens), _) => tokens.answer(request, &mut generator),
            (false, _, None, Some(text)) => text.answer(request, &mut generator),
            _ => request.fail(Error::internal("the model has no front door for this request")),
        }
    }
}
