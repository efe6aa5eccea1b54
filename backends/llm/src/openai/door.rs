//! From a call to an engine.

use serde_json::Value;
use trireme_sdk::{OpenAiError, Request};

use super::Result;
use super::ask::{Abilities, Ask, Receiver, Sampling};
use super::chat::ChatCall;
use super::chunks::{Answers, AskReceiver, Kind, Style};
use super::common::Common;
use super::completion::{CompletionCall, Text};
use crate::chat::ChatTemplate;
use crate::stop::StopRules;
use crate::tokenizer::Tokenizer;

/// Something that continues texts.
pub trait Generator {
    /// Takes an ask; its events go to `receiver`, most of them after this has returned.
    fn run(&mut self, ask: Ask, receiver: Box<dyn Receiver>);
}

/// The endpoints of a model that generates text, the one for conversations first.
pub const GENERATE_ENDPOINTS: &[&str] = &["chat/completions", "completions"];

/// Most answers of one call.
const MAX_ANSWERS: usize = 2048;

/// What is needed to read calls for a model that generates text, and to write their answers.
pub struct TextDoor {
    /// The model's name.
    pub model: String,
    pub tokenizer: Tokenizer,
    /// Without one there are no conversations.
    pub template: Option<ChatTemplate>,
    /// The model's own end-of-text tokens.
    pub eos_ids: Vec<u32>,
    pub vocab_size: usize,
    /// Tokens of a prompt and its answer together.
    pub max_context: usize,
    /// How tokens are chosen where a call does not say.
    pub defaults: Sampling,
    /// What the engine can do.
    pub can: Abilities,
}

impl TextDoor {
    /// The endpoints that are answered.
    pub fn endpoints(&self) -> &'static [&'static str] {
        if self.template.is_some() { GENERATE_ENDPOINTS } else { &GENERATE_ENDPOINTS[1..] }
    }

    /// Answers a request that is a call of OpenAI's API.
    pub fn answer(&self, request: Request, engine: &mut dyn Generator) {
        let Some(call) = request.openai() else {
            return request.fail(trireme_sdk::Error::internal("the request is no call of OpenAI's API"));
        };
        let prepared = parse(call.body).and_then(|body| match call.endpoint {
            "chat/completions" => self.chat(body),
            _ => self.completion(body),
        });
        let mut prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return request.into_responder().fail_json(&error),
        };
        prepared.style.id = request.id().to_owned();
        let (priority, deadline_ns) = (request.priority(), request.deadline_ns());
        let mut responder = request.into_responder();
        responder.computing();
        let Prepared { style, asks, echoes } = prepared;
        let answers = Answers::new(style, self.tokenizer.clone(), echoes, asks.len(), responder);
        let mut base = 0;
        for ask in asks {
            let n = ask.n;
            let receiver = AskReceiver { answers: answers.clone(), base };
            engine.run(Ask { priority, deadline_ns, ..ask }, Box::new(receiver));
            base += n;
        }
    }

    fn chat(&self, body: Value) -> Result<Prepared> {
        let call = ChatCall::read(body, self.vocab_size, self.can, &self.defaults)?;
        let Some(template) = &self.template else {
            let text = format!("The model '{}' has no chat template: use /v1/completions.", self.model);
            return Err(OpenAiError::invalid("model", text));
        };
        let prompt = call.render(template)?;
        let ids = self.ids("messages", &prompt, false)?;
        let mut ask = self.ask("messages", ids, call.max_tokens, &call.common)?;
        ask.guide = if call.tools.forced() { call.tools.guide() } else { call.format };
        let tools = match call.tools.usable() {
            true => call.tools.callable().map(|tool| tool.name.clone()).collect(),
            false => Vec::new(),
        };
        let mut style = self.style(Kind::Chat, &call.common, tools, !call.tools.parallel);
        if call.tools.forced() {
            style.form = "tools";
        }
        let echoes = vec![String::new(); call.common.n as usize];
        Ok(Prepared { style, asks: vec![ask], echoes })
    }

    fn completion(&self, body: Value) -> Result<Prepared> {
        let call = CompletionCall::read(body, self.vocab_size, self.can, &self.defaults)?;
        let answers = call.prompts.len() * call.common.n as usize;
        if answers > MAX_ANSWERS {
            let text = format!(
                "Invalid 'n': the prompts have {answers} answers together, at most {MAX_ANSWERS} are given to one call."
            );
            return Err(OpenAiError::invalid("n", text).with_code("invalid_value"));
        }
        let mut asks = Vec::with_capacity(call.prompts.len());
        let mut echoes = Vec::new();
        for prompt in call.prompts {
            let (ids, text) = match prompt {
                Text::Text(text) => {
                    let ids = self.ids("prompt", &text, true)?;
                    (ids, Some(text))
                }
                Text::Ids(ids) => (ids, None),
            };
            let echo = match text {
                _ if !call.echo => String::new(),
                Some(text) => text,
                None => {
                    let text = self.tokenizer.decode(&ids, false);
                    text.map_err(|e| OpenAiError::invalid("prompt", e.to_string()))?
                }
            };
            echoes.extend(std::iter::repeat_n(echo, call.common.n as usize));
            asks.push(self.ask("prompt", ids, Some(call.max_tokens), &call.common)?);
        }
        let style = self.style(Kind::Completion, &call.common, Vec::new(), false);
        Ok(Prepared { style, asks, echoes })
    }

    /// The tokens of a text, unless it is far too long.
    fn ids(&self, param: &str, text: &str, special: bool) -> Result<Vec<u32>> {
        let most = self.max_context;
        if self.tokenizer.exceeds(text, most) {
            let text =
                format!("This model's maximum context length is {most} tokens, however '{param}' has more.");
            return Err(OpenAiError::invalid(param, text).with_code("context_length_exceeded"));
        }
        self.tokenizer.encode(text, special).map_err(|e| OpenAiError::invalid(param, e.to_string()))
    }

    fn style(&self, kind: Kind, common: &Common, tools: Vec<String>, single_call: bool) -> Style {
        Style {
            kind,
            id: String::new(),
            model: self.model.clone(),
            stream: common.stream,
            include_usage: common.include_usage,
            logprobs: common.sampling.logprobs.is_some(),
            tools,
            single_call,
            form: "response_format",
        }
    }

    fn ask(&self, param: &str, prompt: Vec<u32>, max_tokens: Option<usize>, common: &Common) -> Result<Ask> {
        if prompt.is_empty() {
            return Err(OpenAiError::invalid(param, format!("Invalid '{param}': it has no tokens.")));
        }
        let (most, n) = (self.max_context, prompt.len());
        let room = most.saturating_sub(n);
        if room == 0 || max_tokens.is_some_and(|wanted| wanted > room) {
            let answer =
                max_tokens.map_or_else(|| "an answer".to_owned(), |wanted| format!("{wanted} of the answer"));
            let text = format!(
                "This model's maximum context length is {most} tokens, however you asked for {n} tokens of '{param}' and {answer}."
            );
            return Err(OpenAiError::invalid(param, text).with_code("context_length_exceeded"));
        }
        let stop = StopRules::new(&self.eos_ids, max_tokens.unwrap_or(room))
            .and_then(|stop| stop.with_strings(&common.stop))
            .map_err(|e| OpenAiError::invalid("stop", format!("Invalid 'stop': {e}.")))?
            .with_stop_ids(&common.stop_ids);
        Ok(Ask {
            prompt,
            sampling: common.sampling.clone(),
            stop,
            ignore_eos: common.ignore_eos,
            bad_words: common.bad_words(&self.tokenizer)?,
            guide: None,
            n: common.n,
            priority: 0,
            deadline_ns: None,
            stream: common.stream,
            text: true,
        })
    }
}

struct Prepared {
    style: Style,
    asks: Vec<Ask>,
    /// What each answer begins with.
    echoes: Vec<String>,
}

/// The host has looked at the outermost level only.
pub(super) fn parse(body: &str) -> Result<Value> {
    serde_json::from_str(body).map_err(|error| {
        let text = format!("We could not parse the JSON body of your request: {error}");
        OpenAiError { param: None, ..OpenAiError::invalid("", text) }
    })
}
