//! What an engine says, as the output `text_output`.

use trireme_sdk::{Error, Responder, Response, Result, Verdict};

use crate::openai::{AskError, Event, Flow, Receiver};

/// The receiver of one request.
pub(super) struct TextReceiver {
    /// Gone once the last word is said.
    responder: Option<Responder>,
    stream: bool,
    /// Whether a response has a batch dimension.
    batched: bool,
    /// The whole text, if it is not streamed.
    text: String,
}

impl TextReceiver {
    pub(super) fn new(responder: Responder, stream: bool, batched: bool) -> Self {
        Self { responder: Some(responder), stream, batched, text: String::new() }
    }

    fn response(&self, text: &str) -> Result<Response> {
        let shape: &[i64] = if self.batched { &[1, 1] } else { &[1] };
        Response::new().bytes("text_output", shape, &[text])
    }

    fn piece(&mut self, text: &str) -> Flow {
        if !self.stream {
            self.text.push_str(text);
            return Flow::Continue;
        }
        if text.is_empty() {
            return Flow::Continue;
        }
        let response = self.response(text);
        let (Ok(response), Some(responder)) = (response, &mut self.responder) else { return Flow::Stop };
        match responder.send(response) {
            Verdict::Continue => Flow::Continue,
            Verdict::Pause => Flow::Pause,
            Verdict::Cancelled | Verdict::Closed => Flow::Stop,
        }
    }

    fn end(&mut self, outcome: std::result::Result<(), AskError>) {
        let response = self.response(&self.text);
        let Some(mut responder) = self.responder.take() else { return };
        responder.computed();
        match (outcome, response) {
            (Err(error), _) => responder.fail(failure(error)),
            (Ok(()), _) if self.stream => responder.close(),
            (Ok(()), Ok(response)) => responder.finish(response),
            (Ok(()), Err(error)) => responder.fail(error),
        }
    }
}

fn failure(error: AskError) -> Error {
    match error {
        AskError::Invalid(text) | AskError::Form(text) => {
            Error::invalid(format!("input 'text_input': {text}"))
        }
        AskError::Unavailable(text) | AskError::Overloaded(text) => Error::unavailable(text),
        AskError::Cancelled => Error::cancelled("the request was cancelled"),
        AskError::Internal(text) => Error::internal(text),
    }
}

impl Receiver for TextReceiver {
    fn event(&mut self, event: Event) -> Flow {
        match event {
            Event::Output(output) => self.piece(&output.text),
            Event::End(outcome) => {
                self.end(outcome.map(|_| ()));
                Flow::Continue
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.responder.as_ref().is_none_or(Responder::is_cancelled)
    }

    fn on_writable(&mut self, call: Box<dyn FnOnce() + Send>) {
        match &mut self.responder {
            Some(responder) => responder.on_writable(call),
            None => call(),
        }
    }
}
