//! Calls of tools in what a model writes. Each family of models marks them in its own way; all are understood, so that
//! nobody has to say which family a checkpoint is of.
//!
//! ```text
//! Hermes, Qwen      <tool_call>{"name": "f", "arguments": {...}}</tool_call>   any number
//! Mistral           [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]       or [TOOL_CALLS]f[ARGS]{...}
//! Llama 3           <|python_tag|>{"name": "f", "parameters": {...}}           or the bare object, also with ; between
//! ```

use serde_json::Value;

/// What begins a call, wherever it stands in the text.
const MARKS: &[&str] = &["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function_call>"];

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object as text.
    pub(super) arguments: String,
}

/// Takes the text of an answer in pieces and tells what of it is for the reader; the rest is kept for the end.
#[derive(Debug, Default)]
pub(super) struct ToolText {
    /// What may be a call or the beginning of its mark.
    held: String,
    /// A call has begun: all that follows is part of it.
    calling: bool,
    /// Something was shown, so that a bare object is no call any more.
    shown: bool,
}

impl ToolText {
    /// Takes a piece; returns what may be shown.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if self.calling {
            return String::new();
        }
        if !self.shown {
            // An answer that is an object from its first letter may be a bare call.
            match self.held.trim_start().chars().next() {
                None => return String::new(),
                Some('{') => {
                    self.calling = true;
                    return String::new();
                }
                Some(_) => {}
            }
        }
        let mark = MARKS.iter().filter_map(|mark| self.held.find(mark)).min();
        let end = match mark {
            Some(at) => {
                self.calling = true;
                at
            }
            None => self.held.len() - MARKS.iter().map(|mark| overlap(&self.held, mark)).max().unwrap_or(0),
        };
        let rest = self.held.split_off(end);
        let text = std::mem::replace(&mut self.held, rest);
        self.shown |= !text.trim().is_empty();
        text
    }

    /// The answer is over: its calls, or the rest of the text if there are none. Only tools of these names are called.
    pub(super) fn finish(self, known: &dyn Fn(&str) -> bool) -> std::result::Result<Vec<Call>, String> {
        let calls: Vec<Call> = calls(&self.held).into_iter().filter(|call| known(&call.name)).collect();
        if calls.is_empty() { Err(self.held) } else { Ok(calls) }
    }
}

/// Bytes of the longest end of `text` that begins `mark`, but is not all of it.
fn overlap(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&mark.as_bytes()[..n])).unwrap_or(0)
}

/// All calls in a text, in their order: every JSON value at the top that looks like one.
pub(super) fn calls(text: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let (before, from) = rest.split_at(at);
        if let Some(call) = named_arguments(before, from, &mut rest) {
            found.push(call);
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(from).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                collect(&value, &mut found);
                rest = from.get(values.byte_offset()..).unwrap_or_default();
            }
            // A bracket of the text, or a value that was cut off.
            _ => rest = from.get(1..).unwrap_or_default(),
        }
    }
    found
}

/// Mistral's newer form: `name[ARGS]{...}`.
fn named_arguments<'a>(before: &str, from: &'a str, rest: &mut &'a str) -> Option<Call> {
    let arguments = from.strip_prefix("[ARGS]")?;
    let mut values = serde_json::Deserializer::from_str(arguments).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let name = before.rsplit([']', '>']).next()?.trim();
    *rest = arguments.get(values.byte_offset()..)?;
    (!name.is_empty() && value.is_object())
        .then(|| Call { name: name.to_owned(), arguments: value.to_string() })
}

fn collect(value: &Value, found: &mut Vec<Call>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        Value::Object(object) => {
            let object = object.get("function").and_then(Value::as_object).unwrap_or(object);
            let Some(name) = object.get("name").and_then(Value::as_str) else { return };
            let arguments = match object.get("arguments").or_else(|| object.get("parameters")) {
                Some(Value::String(text)) => text.clone(),
                Some(arguments @ Value::Object(_)) => arguments.to_string(),
                None => "{}".to_owned(),
                Some(_) => return,
            };
            found.push(Call { name: name.to_owned(), arguments });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn call(name: &str, arguments: &str) -> Call {
        Call { name: name.to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn every_family_is_understood() {
        let f = call("f", r#"{"x":1}"#);
        for text in [
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>",
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": 1}}]",
            "[TOOL_CALLS]f[ARGS]{\"x\": 1}",
            "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"x\": 1}}",
            "{\"name\": \"f\", \"parameters\": {\"x\": 1}}",
            "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\":1}\"}}",
        ] {
            assert_eq!(calls(text), std::slice::from_ref(&f), "{text}");
        }
        let two = "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>";
        assert_eq!(calls(two), [f.clone(), call("g", "{}")]);
        assert_eq!(
            calls("{\"name\": \"f\", \"parameters\": {\"x\": 1}}; {\"name\": \"g\", \"parameters\": {}}")
                .len(),
            2
        );
        for none in [
            "",
            "a [1] b {",
            "{\"name\": 1}",
            "{\"name\": \"f\", \"arguments\": 3}",
            "{\"name\": \"f\", \"argum",
        ] {
            assert_eq!(calls(none), [], "{none}");
        }
    }

    fn run(text: &str, cuts: usize) -> (String, Vec<Call>) {
        let mut tools = ToolText::default();
        let letters: Vec<char> = text.chars().collect();
        let mut shown: String =
            letters.chunks(cuts.max(1)).map(|piece| tools.push(&piece.iter().collect::<String>())).collect();
        match tools.finish(&|name| name != "unknown") {
            Ok(calls) => (shown, calls),
            Err(rest) => {
                shown.push_str(&rest);
                (shown, Vec::new())
            }
        }
    }

    #[test]
    fn text_before_a_call_is_shown_and_the_call_is_not() {
        let text = "Let me see. <tool_call>{\"name\": \"f\"}</tool_call>";
        for cuts in 1..text.len() {
            assert_eq!(run(text, cuts), ("Let me see. ".to_owned(), vec![call("f", "{}")]), "{cuts}");
        }
    }

    #[test]
    fn what_is_no_call_after_all_is_text() {
        for text in [
            "{\"a\": 1}",
            "<tool_call>broken",
            "1 < 2 and [TOOL",
            "{\"name\": \"unknown\"}",
            "so: {\"name\": \"f\"}",
        ] {
            assert_eq!(run(text, 3), (text.to_owned(), Vec::new()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_wherever_it_is_cut(text in "[ab<{}\\[\\]: ]{0,40}", cuts in 1usize..8) {
            prop_assert_eq!(run(&text, cuts), (text, Vec::new()));
        }
    }
}
