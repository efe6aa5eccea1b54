//! What is said of every answer, whatever is tried.

use crate::case::Ask;
use crate::compare::of_outputs;
use crate::declared::code_name;
use crate::replies::{Answer, Output, Replies};
use crate::running::Bench;

impl Bench<'_> {
    /// What is wrong with the answers to a request.
    pub(crate) fn judge(&self, ask: &Ask<'_>, replies: &Replies) -> Result<(), String> {
        for answer in &replies.answers {
            self.judge_answer(ask, answer)?;
        }
        let errors = replies.answers.iter().filter_map(|answer| answer.error.as_ref());
        if let Some((code, message)) = errors.into_iter().next() {
            self.note_error(format!("{} '{message}'", code_name(*code)));
        }
        self.judge_count(ask, replies)?;
        self.judge_expectation(ask, replies)
    }

    fn judge_answer(&self, ask: &Ask<'_>, answer: &Answer) -> Result<(), String> {
        if let Some((code, message)) = &answer.error {
            // The host's own sentence, when a responder is released without an end.
            if message.contains("dropped the request without an answer") {
                return Err("it was dropped without an answer".to_owned());
            }
            if !(2..=8).contains(code) {
                return Err(format!("an error has the code {code}, which is no status of this ABI"));
            }
            if message.trim().is_empty() {
                return Err(format!("an error {} says nothing", code_name(*code)));
            }
            // The host has looked at shape, type and length already, and speaks of them in its own words.
            if *code == 2 && message.starts_with("the backend sent ") {
                return Err(message.clone());
            }
        }
        let rows = self.config.batches().then_some(ask.case.rows);
        for output in &answer.outputs {
            let known = self.config.outputs.iter().find(|tensor| tensor.name == output.name);
            // The states of a sequence come back among the outputs.
            let Some(tensor) = known else {
                if self.config.states.is_empty() {
                    return Err(format!("output '{}' is not in the configuration", output.name));
                }
                continue;
            };
            if let Some(difference) = tensor.difference(rows, output.dtype, &output.shape) {
                return Err(difference);
            }
            if answer.outputs.iter().filter(|other| other.name == output.name).count() > 1 {
                return Err(format!("output '{}' is there twice", output.name));
            }
        }
        Ok(())
    }

    fn judge_count(&self, ask: &Ask<'_>, replies: &Replies) -> Result<(), String> {
        let count = replies.answers.len();
        if !self.config.decoupled && count != 1 {
            return Err(format!("{count} answers of a model that is not decoupled"));
        }
        match ask.case.expected.answers {
            Some(expected) if expected != count && !ask.cancelled => {
                Err(format!("{count} answers, conformance.json expects {expected}"))
            }
            _ => Ok(()),
        }
    }

    fn judge_expectation(&self, ask: &Ask<'_>, replies: &Replies) -> Result<(), String> {
        if ask.cancelled || ask.deadline_ns != 0 {
            return Ok(());
        }
        let error = replies.answers.iter().find_map(|answer| answer.error.as_ref());
        match (ask.case.expected.error, error) {
            (Some(expected), None) => {
                return Err(format!("no error, conformance.json expects {}", code_name(expected)));
            }
            (Some(expected), Some((code, message))) if expected != *code => {
                let (expected, code) = (code_name(expected), code_name(*code));
                return Err(format!("the error {code} '{message}', conformance.json expects {expected}"));
            }
            (None, Some((code, message))) if !self.makes_requests() => {
                return Err(format!("the error {} '{message}'", code_name(*code)));
            }
            _ => {}
        }
        let Some(first) = replies.answers.first() else { return Ok(()) };
        for (name, dtype, shape, data) in &ask.case.outputs {
            let expected =
                Output { name: name.clone(), dtype: *dtype, shape: shape.clone(), data: data.clone() };
            match first.outputs.iter().find(|output| output.name == *name) {
                None if ask.wanted.is_some() => {}
                None => return Err(format!("output '{name}' is not there")),
                Some(output) => {
                    if let Some(difference) = of_outputs(&expected, output) {
                        return Err(format!("expected and found: {difference}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The outputs that are wanted and did not come; none is asked of a decoupled model.
    pub(crate) fn missing(&self, replies: &Replies) -> Option<String> {
        let answer = replies.answers.first().filter(|answer| answer.error.is_none())?;
        if self.config.decoupled {
            return None;
        }
        let is_there = |name: &str| answer.outputs.iter().any(|output| output.name == name);
        let missing = self.config.outputs.iter().find(|output| !is_there(&output.name))?;
        Some(format!("output '{}' was asked for and did not come", missing.name))
    }
}
