//! What an engine says, as objects of the API: one at the end, or chunks as they come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use trireme_sdk::{OpenAiError, Responder, Verdict};

use super::ask::{AskError, Event, Flow, Output, Receiver, Usage};
use super::logprobs::{CompletionLogprobs, of_chat};
use super::tool_calls::{Call, ToolText};
use crate::tokenizer::Tokenizer;

/// Which object is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// How answers are shown.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
    /// The tools that may be called; none: all text is text.
    pub(super) tools: Vec<String>,
    /// At most one call an answer.
    pub(super) single_call: bool,
    /// The field that says what form an answer has.
    pub(super) form: &'static str,
}

type Resume = Box<dyn FnOnce() + Send>;

/// All answers to one call.
pub(super) struct Answers {
    style: Style,
    created: u64,
    tokenizer: Tokenizer,
    choices: Vec<Choice>,
    usage: Usage,
    /// Asks that have not ended.
    open: usize,
    /// What asks want to be told when the reader has caught up: a responder keeps one call only.
    paused: Arc<Mutex<Vec<Resume>>>,
    /// Gone once the last word is said.
    responder: Option<Responder>,
}

/// One answer.
#[derive(Debug, Default)]
struct Choice {
    text: String,
    tools: Option<ToolText>,
    calls: Vec<Call>,
    chat_logprobs: Vec<Value>,
    logprobs: CompletionLogprobs,
    finish: Option<&'static str>,
    begun: bool,
}

impl Answers {
    /// `echoes` has the text that each answer begins with; its length is the number of answers.
    pub(super) fn new(
        style: Style,
        tokenizer: Tokenizer,
        echoes: Vec<String>,
        open: usize,
        responder: Responder,
    ) -> Arc<Mutex<Self>> {
        let choice = |text: String| Choice {
            tools: (!style.tools.is_empty()).then(ToolText::default),
            logprobs: CompletionLogprobs::after(text.chars().count()),
            text,
            ..Choice::default()
        };
        let choices = echoes.into_iter().map(choice).collect();
        let created = created();
        let (usage, responder) = (Usage::default(), Some(responder));
        Arc::new(Mutex::new(Self {
            style,
            created,
            tokenizer,
            choices,
            usage,
            open,
            paused: Arc::default(),
            responder,
        }))
    }

    /// Takes an event of the ask whose first answer is `base`.
    fn event(&mut self, base: u32, event: Event) -> Flow {
        match event {
            Event::Output(output) => self.output(base, output),
            Event::End(Ok(usage)) => {
                self.usage.prompt_tokens += usage.prompt_tokens;
                self.usage.cached_tokens += usage.cached_tokens;
                self.usage.completion_tokens += usage.completion_tokens;
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.finish();
                }
                Flow::Continue
            }
            Event::End(Err(error)) => {
                if let Some(responder) = self.responder.take() {
                    responder.fail_json(&told(error, self.style.form));
                }
                Flow::Stop
            }
        }
    }

    fn output(&mut self, base: u32, output: Output) -> Flow {
        let number = base as usize + output.index as usize;
        let Some(choice) = self.choices.get_mut(number) else { return Flow::Stop };
        if self.responder.is_none() {
            return Flow::Stop;
        }
        let mut flow = Flow::Continue;
        let mut text = match &mut choice.tools {
            Some(tools) => tools.push(&output.text),
            None => output.text,
        };
        for logprobs in &output.logprobs {
            match self.style.kind {
                Kind::Chat => choice.chat_logprobs.push(of_chat(&self.tokenizer, logprobs)),
                Kind::Completion => choice.logprobs.push(&self.tokenizer, logprobs),
            }
        }
        if let Some(reason) = output.finish {
            choice.finish = Some(reason.as_str());
            let names = &self.style.tools;
            match choice
                .tools
                .take()
                .map(|tools| tools.finish(&|name| names.iter().any(|known| known == name)))
            {
                Some(Ok(mut calls)) => {
                    if self.style.single_call {
                        calls.truncate(1);
                    }
                    // Calls that were cut off are none, but those before the cut are whole.
                    if choice.finish == Some("stop") {
                        choice.finish = Some("tool_calls");
                    }
                    choice.calls = calls;
                }
                Some(Err(rest)) => text.push_str(&rest),
                None => {}
            }
        }
        choice.text.push_str(&text);
        if self.style.stream {
            flow = self.stream(number, &text);
        }
        flow
    }

    /// Sends what is new of an answer.
    fn stream(&mut self, number: usize, text: &str) -> Flow {
        let mut chunks = Vec::new();
        let Some(choice) = self.choices.get_mut(number) else { return Flow::Stop };
        let first = !std::mem::replace(&mut choice.begun, true);
        match self.style.kind {
            Kind::Chat => {
                if first {
                    chunks.push((json!({ "role": "assistant", "content": "" }), Value::Null, None));
                }
                let logprobs = match self.style.logprobs {
                    true if !choice.chat_logprobs.is_empty() => {
                        json!({ "content": std::mem::take(&mut choice.chat_logprobs), "refusal": null })
                    }
                    _ => Value::Null,
                };
                if !text.is_empty() || !logprobs.is_null() {
                    chunks.push((json!({ "content": text }), logprobs, None));
                }
                if !choice.calls.is_empty() {
                    let calls: Vec<Value> = choice
                        .calls
                        .iter()
                        .enumerate()
                        .map(|(index, call)| {
                            let mut call = call_object(&self.style.id, number, index, call);
                            call["index"] = index.into();
                            call
                        })
                        .collect();
                    chunks.push((json!({ "tool_calls": calls }), Value::Null, None));
                }
                if let Some(finish) = choice.finish {
                    chunks.push((json!({}), Value::Null, Some(finish)));
                }
            }
            Kind::Completion => {
                // What was there before the first token is the echo.
                let text = if first { choice.text.as_str() } else { text };
                let logprobs = if self.style.logprobs { choice.logprobs.take() } else { Value::Null };
                if !text.is_empty() || choice.finish.is_some() {
                    chunks.push((json!(text), logprobs, choice.finish));
                }
            }
        }
        let mut flow = Flow::Continue;
        for (content, logprobs, finish) in chunks {
            let name = if self.style.kind == Kind::Chat { "delta" } else { "text" };
            let choice =
                json!({ "index": number, name: content, "logprobs": logprobs, "finish_reason": finish });
            let mut object = self.object(vec![choice]);
            if self.style.include_usage {
                object["usage"] = Value::Null;
            }
            match self.send(&object) {
                Verdict::Continue => {}
                Verdict::Pause => flow = Flow::Pause,
                Verdict::Cancelled | Verdict::Closed => return Flow::Stop,
            }
        }
        flow
    }

    fn send(&mut self, object: &Value) -> Verdict {
        match &mut self.responder {
            Some(responder) => responder.send_json(&object.to_string()),
            None => Verdict::Closed,
        }
    }

    /// The last word.
    fn finish(&mut self) {
        if self.style.stream {
            if self.style.include_usage {
                let mut object = self.object(Vec::new());
                object["usage"] = self.usage();
                self.send(&object);
            }
            if let Some(responder) = self.responder.take() {
                responder.close();
            }
            return;
        }
        let choices = std::mem::take(&mut self.choices);
        let choices =
            choices.into_iter().enumerate().map(|(index, choice)| self.whole(index, choice)).collect();
        let mut object = self.object(choices);
        object["usage"] = self.usage();
        if let Some(responder) = self.responder.take() {
            responder.finish_json(&object.to_string());
        }
    }

    /// An answer that is not streamed.
    fn whole(&self, index: usize, mut choice: Choice) -> Value {
        let finish = choice.finish.unwrap_or("stop");
        if self.style.kind == Kind::Completion {
            let logprobs = if self.style.logprobs { choice.logprobs.take() } else { Value::Null };
            return json!({ "index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": finish });
        }
        let logprobs = match self.style.logprobs {
            true => json!({ "content": choice.chat_logprobs, "refusal": null }),
            false => Value::Null,
        };
        let mut message = json!({ "role": "assistant", "content": choice.text, "refusal": null });
        if !choice.calls.is_empty() {
            let calls = choice.calls.iter().enumerate();
            let calls: Vec<Value> =
                calls.map(|(at, call)| call_object(&self.style.id, index, at, call)).collect();
            message["tool_calls"] = calls.into();
            if choice.text.trim().is_empty() {
                message["content"] = Value::Null;
            }
        }
        json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish })
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        let (prefix, object) = match (self.style.kind, self.style.stream) {
            (Kind::Chat, false) => ("chatcmpl", "chat.completion"),
            (Kind::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Kind::Completion, _) => ("cmpl", "text_completion"),
        };
        json!({
            "id": format!("{prefix}-{}", self.style.id),
            "object": object,
            "created": self.created,
            "model": self.style.model,
            "system_fingerprint": concat!("trireme-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        let Usage { prompt_tokens, cached_tokens, completion_tokens } = self.usage;
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": { "cached_tokens": cached_tokens },
        })
    }
}

fn call_object(id: &str, choice: usize, number: usize, call: &Call) -> Value {
    json!({
        "id": format!("call_{id}_{choice}_{number}"),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

fn told(error: AskError, form: &str) -> OpenAiError {
    let server = |status, message| OpenAiError { status, ..OpenAiError::internal(message) };
    match error {
        AskError::Invalid(message) => OpenAiError { param: None, ..OpenAiError::invalid("", message) },
        AskError::Form(message) => {
            let text = format!("Invalid '{form}': no answer can be held to this form: {message}.");
            OpenAiError::invalid(form, text)
        }
        AskError::Unavailable(message) => server(503, message),
        AskError::Overloaded(message) => {
            let error =
                OpenAiError { status: 429, kind: "rate_limit_error", ..OpenAiError::internal(message) };
            error.with_code("rate_limit_exceeded")
        }
        AskError::Cancelled => server(499, "the request was cancelled".to_owned()),
        AskError::Internal(message) => server(500, message),
    }
}

#[expect(clippy::disallowed_methods, reason = "an answer says when it was made")]
fn created() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The receiver of one ask.
pub(super) struct AskReceiver {
    pub(super) answers: Arc<Mutex<Answers>>,
    /// The number of the ask's first answer.
    pub(super) base: u32,
}

impl AskReceiver {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver for AskReceiver {
    fn event(&mut self, event: Event) -> Flow {
        self.lock().event(self.base, event)
    }

    fn is_cancelled(&self) -> bool {
        self.lock().responder.as_ref().is_none_or(Responder::is_cancelled)
    }

    fn on_writable(&mut self, call: Box<dyn FnOnce() + Send>) {
        let mut answers = self.lock();
        let paused = Arc::clone(&answers.paused);
        let Some(responder) = &mut answers.responder else {
            drop(answers);
            return call();
        };
        let earlier = {
            let mut paused = paused.lock().unwrap_or_else(PoisonError::into_inner);
            paused.push(call);
            paused.len() > 1
        };
        if !earlier {
            // It may be called at once: none of the two locks is asked for that this thread has.
            responder.on_writable(move || {
                let calls = std::mem::take(&mut *paused.lock().unwrap_or_else(PoisonError::into_inner));
                calls.into_iter().for_each(|call| call());
            });
        }
    }
}
