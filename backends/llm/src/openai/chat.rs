//! `chat/completions`: a conversation goes on.

use serde_json::{Map, Value, json};
use trireme_sdk::OpenAiError;

use super::ask::{Abilities, GuideSpec, Sampling};
use super::common::{self, Common, cannot};
use super::fields::{Fields, wrong_type};
use super::tools::Tools;
use super::{Result, format, messages};
use crate::chat::{ChatOptions, ChatTemplate};

/// A call, checked.
#[derive(Debug)]
pub(super) struct ChatCall {
    pub(super) messages: Vec<Value>,
    pub(super) tools: Tools,
    pub(super) format: Option<GuideSpec>,
    /// `None`: as many as the context holds.
    pub(super) max_tokens: Option<usize>,
    pub(super) common: Common,
    /// Further variables of the template.
    variables: Map<String, Value>,
}

impl ChatCall {
    pub(super) fn read(body: Value, vocab_size: usize, can: Abilities, defaults: &Sampling) -> Result<Self> {
        let mut fields = Fields::of("", body)?;
        let messages = messages::messages(fields.needed("messages")?)?;
        let mut common = common::take(&mut fields, vocab_size, can, defaults)?;
        let tools = Tools::take(&mut fields)?;
        let format = format::take(&mut fields)?;
        if format.is_some() && !can.guided {
            return Err(cannot("response_format"));
        }
        if tools.forced() && !can.guided {
            return Err(cannot("tool_choice"));
        }
        if tools.forced() && format.is_some() {
            let text = "'response_format' cannot be held together with a 'tool_choice' that forces a call.";
            return Err(OpenAiError::invalid("response_format", text));
        }
        common.sampling.logprobs = logprobs(&mut fields, can)?;
        let max_tokens = max_tokens(&mut fields)?;
        let variables = match fields.take("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => return Err(wrong_type("chat_template_kwargs", "an object", &other)),
        };
        refuse_the_rest(&mut fields)?;
        fields.finish()?;
        Ok(Self { messages, tools, format, max_tokens, common, variables })
    }

    /// The prompt. The model is told of the tools by its template, or if that has no place for them, by a system message.
    pub(super) fn render(&self, template: &ChatTemplate) -> Result<String> {
        let mut options = ChatOptions { variables: self.variables.clone(), ..ChatOptions::default() };
        let mut messages = std::borrow::Cow::Borrowed(&self.messages);
        if self.tools.usable() && template.mentions("tools") {
            let list: Vec<Value> = self.tools.list.iter().map(|tool| tool.value.clone()).collect();
            options.variables.insert("tools".to_owned(), list.into());
        } else if self.tools.usable() {
            tell(messages.to_mut(), &self.tools.instructions());
        }
        template
            .render(&messages, &options)
            .map_err(|error| OpenAiError::invalid("messages", format!("Invalid 'messages': {error}.")))
    }
}

/// Puts instructions into the system message, which is made if there is none.
fn tell(messages: &mut Vec<Value>, instructions: &str) {
    match messages.first_mut() {
        Some(first) if first["role"] == "system" => {
            let text = format!("{}\n\n{instructions}", first["content"].as_str().unwrap_or_default());
            first["content"] = text.into();
        }
        _ => messages.insert(0, json!({ "role": "system", "content": instructions })),
    }
}

fn logprobs(fields: &mut Fields, can: Abilities) -> Result<Option<u32>> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, 20)?;
    if wanted && !can.logprobs {
        return Err(cannot("logprobs"));
    }
    match (wanted, top) {
        (false, Some(_)) => {
            let text = "'top_logprobs' is only allowed when 'logprobs' is true.";
            Err(OpenAiError::invalid("top_logprobs", text))
        }
        (false, None) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as u32)),
    }
}

/// The newer name and the older one.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>> {
    let new = fields.integer("max_completion_tokens", 1, 1 << 24)?;
    let old = fields.integer("max_tokens", 1, 1 << 24)?;
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        let text = "'max_tokens' and 'max_completion_tokens' differ: give one of them.";
        return Err(OpenAiError::invalid("max_tokens", text));
    }
    Ok(new.or(old).map(|n| n as usize))
}

/// Documented fields for what this server does not do. A value that changes nothing is let through.
fn refuse_the_rest(fields: &mut Fields) -> Result<()> {
    fields.only("modalities", &[json!(["text"])], "the model answers text")?;
    fields.only("audio", &[], "the model answers text")?;
    fields.only("prediction", &[], "nothing is predicted ahead")?;
    fields.only("reasoning_effort", &[json!("none")], "the model has no effort to set")?;
    fields.only("verbosity", &[json!("medium")], "the model has no verbosity to set")?;
    fields.only("web_search_options", &[], "the server does not search the web")?;
    fields.only("prompt_cache_retention", &[json!("in_memory")], "prompts are kept in memory")?;
    fields.only("moderation", &[], "the server does not moderate")?;
    fields.only("functions", &[], "it is deprecated, use 'tools'")?;
    fields.only("function_call", &[json!("none")], "it is deprecated, use 'tool_choice'")
}
