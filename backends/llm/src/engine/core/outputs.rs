//! What comes of a step.

use super::{Core, Event, RequestError};
use crate::engine::Finish;
use crate::executor::{Sampled, StepOutput};
use crate::stop::FinishReason;

impl Core {
    /// Takes the output of the oldest step. A token of a sequence that has ended meanwhile is dropped.
    pub fn complete(&mut self, output: StepOutput, now: u64) {
        let Some((id, rows)) = self.in_flight.pop_front() else { return };
        debug_assert_eq!(id, output.id, "steps end in order");
        let sequence = |slot| rows.iter().find(|(s, _)| *s == slot).map(|(_, sequence)| *sequence);
        for (slot, logits) in output.context_logits {
            if let Some(s) = sequence(slot).and_then(|id| self.sequences.get_mut(&id)) {
                s.out.context_logits.get_or_insert_default().extend(logits);
            }
        }
        for sampled in output.sampled {
            if let Some(id) = sequence(sampled.slot) {
                self.token(id, sampled, now);
            }
        }
    }

    fn token(&mut self, id: u64, sampled: Sampled, now: u64) {
        let Some(s) = self.sequences.get_mut(&id) else { return };
        let Some(group) = self.groups.get_mut(&s.request) else { return };
        s.pending -= 1;
        let Some(token) = sampled.token else {
            let error = RequestError::NoToken { index: s.index, position: s.generated.len() };
            let request = s.request;
            return self.end(request, error);
        };
        self.tally.token(s.token_ns.replace(now), now);
        if group.usage.completion_tokens == 0 {
            self.tally.first_token(&group.usage, now);
            group.usage.first_token_ns = now;
        }
        group.usage.completion_tokens += 1;
        group.usage.last_token_ns = now;
        let rules = &group.request.stop;
        let stop = rules.at_token(token);
        if let Some(reason) = stop.filter(|r| *r != FinishReason::EndOfText || !group.request.ignore_eos) {
            return self.finish(id, reason, Some(token));
        }
        s.generated.push(token);
        s.note(token, sampled);
        let mut stopped = false;
        if let Some((detokenizer, filter)) = &mut s.text {
            match detokenizer.push(token) {
                Ok(piece) => {
                    let text;
                    (text, stopped) = filter.push(&piece);
                    s.out.text.push_str(&text);
                }
                Err(error) => {
                    let request = s.request;
                    return self.end(request, RequestError::Internal(error.to_string()));
                }
            }
        }
        let mut whole = false;
        if let Some(grammar) = &mut s.grammar {
            if let Err(error) = grammar.consume(token) {
                let request = s.request;
                return self.end(request, RequestError::Internal(error.to_string()));
            }
            whole = grammar.is_over();
        }
        if stopped {
            return self.finish(id, FinishReason::StopString, None);
        }
        if whole {
            return self.finish(id, FinishReason::EndOfText, None);
        }
        if rules.at_word(&s.generated) {
            return self.finish(id, FinishReason::StopToken, None);
        }
        if s.generated.len() == s.limit {
            let reason = s.at_limit;
            return self.finish(id, reason, None);
        }
        let due = |n: std::num::NonZeroU32| s.first_out || s.out.tokens.len() >= n.get() as usize;
        if group.request.stream.is_some_and(due) {
            let (request, output) = (s.request, s.take_output(None));
            self.events.push((request, Event::Output(output)));
        }
        self.register(id);
    }

    fn finish(&mut self, id: u64, mut reason: FinishReason, token: Option<u32>) {
        let Some(s) = self.sequences.get_mut(&id) else { return };
        if let Some((detokenizer, filter)) = s.text.as_mut().filter(|_| reason != FinishReason::StopString) {
            // Bytes that are no text have no text.
            let (rest, stopped) = filter.push(&detokenizer.finish().unwrap_or_default());
            s.out.text.push_str(&rest);
            if stopped {
                reason = FinishReason::StopString;
            } else {
                s.out.text.push_str(&filter.finish());
            }
        }
        let completion_tokens = s.generated.len() + usize::from(token.is_some());
        let (request, output) = (s.request, s.take_output(Some(Finish { reason, token, completion_tokens })));
        self.events.push((request, Event::Output(output)));
        self.drop_sequence(id);
        let Some(group) = self.groups.get_mut(&request) else { return };
        group.left -= 1;
        if group.left == 0 {
            let usage = group.usage;
            self.tally.answered(&usage, usage.last_token_ns);
            self.take_group(request);
            self.events.push((request, Event::End(Ok(usage))));
        }
    }
}
