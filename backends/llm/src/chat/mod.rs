//! Chat templates: messages to the prompt that the model was trained on.

mod functions;
mod python_json;

use std::io;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::checkpoint::ChatTemplateSource;

/// What one rendering may take: a unit is an instruction or 64 bytes of memory. A turn of a conversation takes about
/// a hundred.
const FUEL: u64 = 4_000_000;
/// Bytes of prompt that one rendering may give.
const MAX_OUTPUT: usize = 64 << 20;
const NAME: &str = "chat_template";

/// A template that cannot be read, or that refuses these messages. The request (or the checkpoint) is at fault.
#[derive(Debug, thiserror::Error)]
#[error("chat template{}: {text}", line.map(|n| format!(" line {n}")).unwrap_or_default())]
pub struct ChatError {
    /// Line of the template, from 1.
    pub line: Option<usize>,
    pub text: String,
}

impl From<minijinja::Error> for ChatError {
    fn from(e: minijinja::Error) -> Self {
        let text = match (e.kind(), e.detail()) {
            (minijinja::ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        Self { line: e.line(), text }
    }
}

/// One message of a conversation. Anything else that serialises to an object with these keys does as well.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What a rendering depends on besides the messages.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// What `strftime_now` tells, in UTC.
    pub now: SystemTime,
    /// Further variables (`tools`, `documents`, ...). They cannot replace the ones that are always there.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

impl Default for ChatOptions {
    #[expect(clippy::disallowed_methods, reason = "templates show the date of the day")]
    fn default() -> Self {
        Self { add_generation_prompt: true, now: SystemTime::now(), variables: serde_json::Map::new() }
    }
}

/// A parsed chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    text: String,
}

impl ChatTemplate {
    /// Parses the template. It can reach no file: nothing loads further templates.
    pub fn new(source: &ChatTemplateSource) -> Result<Self, ChatError> {
        let mut env = Environment::new();
        env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_fuel(Some(FUEL));
        functions::add(&mut env);
        env.add_template_owned(NAME, without_marks(&source.text))?;
        let (bos_token, eos_token) = (source.bos_token.clone(), source.eos_token.clone());
        Ok(Self { env, bos_token, eos_token, text: source.text.clone() })
    }

    /// Whether the template has this word in it: one that knows tools speaks of `tools`.
    pub fn mentions(&self, word: &str) -> bool {
        self.text.contains(word)
    }

    /// The prompt of `messages`. Encode it without adding special tokens: the template wrote them.
    pub fn render<M: Serialize>(&self, messages: &[M], options: &ChatOptions) -> Result<String, ChatError> {
        let mut variables = options.variables.clone();
        let token = |t: &Option<String>| serde_json::Value::from(t.clone().unwrap_or_default());
        variables.insert("bos_token".into(), token(&self.bos_token));
        variables.insert("eos_token".into(), token(&self.eos_token));
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let now = functions::strftime_at(options.now);
        let context = minijinja::context! {
            messages => Value::from(Serde(messages)),
            strftime_now => now,
            ..Value::from(Serde(&variables))
        };
        let mut out = Limited { bytes: Vec::new(), over: false };
        let rendered = self.env.get_template(NAME)?.render_captured_to(context, &mut out).map(drop);
        if out.over {
            let text = format!("the prompt is over the limit of {MAX_OUTPUT} bytes");
            return Err(ChatError { line: None, text });
        }
        rendered?;
        String::from_utf8(out.bytes).map_err(|e| ChatError { line: None, text: e.to_string() })
    }
}

/// The template with `{% generation %}` as a condition that holds: the tag marks for training what the assistant says, and
/// changes no prompt.
fn without_marks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let word = after.trim_start_matches(['-', '+', ' ', '\t', '\r', '\n']);
        let (blanks, word) = (&after[..after.len() - word.len()], word);
        let tags = [("generation", "if true"), ("endgeneration", "endif")];
        let ends = |rest: &str| rest.starts_with([' ', '-', '+', '%', '\t', '\r', '\n']);
        let tag = tags.iter().find_map(|(tag, new)| Some((word.strip_prefix(tag).filter(|r| ends(r))?, new)));
        rest = match tag {
            Some((after, new)) => {
                out.push_str(blanks);
                out.push_str(new);
                after
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// Bytes in memory, up to [`MAX_OUTPUT`].
struct Limited {
    bytes: Vec<u8>,
    over: bool,
}

impl io::Write for Limited {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() > MAX_OUTPUT - self.bytes.len() {
            self.over = true;
            return Err(io::Error::other("over the limit"));
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
