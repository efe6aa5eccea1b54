//! `preserve_ordering`: answers leave in the order in which their requests arrived.
//!
//! ```text
//!   arrival:   1        2        3
//!   answers:   a        ·        e f#      # is the last answer of its request
//!   released:  a        (3 is held until 2 is done)
//! ```
//! A request's place is taken when it arrives, not when it is answered: whoever takes it later releases in
//! the order of completion, which is no order at all. The whole stream of a request of a decoupled model
//! comes before the first answer of the next; the stream of the first in line is not held up.

use std::collections::VecDeque;

use crate::mutant::mutant;

/// A request's place in the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn(u64);

#[derive(Debug)]
struct Stream<A> {
    held: Vec<A>,
    done: bool,
}

/// Holds answers back until it is their turn.
///
/// What a call appends to `released` must be sent before what a later call appends. A caller with threads
/// therefore sends under the lock that guards this, or hands over to a single sender in the order of the
/// calls.
#[derive(Debug)]
pub struct AnswerOrder<A> {
    /// From the first request that is not done; the number of the front is `first`.
    streams: VecDeque<Stream<A>>,
    first: u64,
    held: usize,
}

impl<A> Default for AnswerOrder<A> {
    fn default() -> Self {
        Self { streams: VecDeque::new(), first: 0, held: 0 }
    }
}

impl<A> AnswerOrder<A> {
    pub fn new() -> Self {
        Self::default()
    }

    /// A request was taken into the queue. Call it in the order of the arrivals.
    pub fn on_arrival(&mut self) -> Turn {
        let turn = Turn(self.first + self.streams.len() as u64);
        self.streams.push_back(Stream { held: Vec::new(), done: false });
        turn
    }

    /// An answer is there, the request's last one if `last`. Appends to `released` what may leave now. False:
    /// the request is done already, and the answer is dropped.
    pub fn on_answer(&mut self, turn: Turn, answer: A, last: bool, released: &mut Vec<(Turn, A)>) -> bool {
        let is_first = turn.0 == self.first || mutant!("wrong-order");
        let Some(stream) = self.stream(turn) else { return false };
        stream.done = last;
        if is_first {
            released.push((turn, answer));
            self.advance(released);
        } else {
            stream.held.push(answer);
            self.held += 1;
        }
        true
    }

    /// The request has no answer to wait for any more: it was cancelled, or its refusal is sent at once.
    /// Answers of it that are held still leave in their turn. False: it was done already.
    pub fn on_done(&mut self, turn: Turn, released: &mut Vec<(Turn, A)>) -> bool {
        let Some(stream) = self.stream(turn) else { return false };
        stream.done = true;
        if turn.0 == self.first {
            self.advance(released);
        }
        true
    }

    /// Answers that wait for their turn, of all requests.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Answers of this request that wait for their turn; a producer of a long stream may be paused by it.
    pub fn held_of(&self, turn: Turn) -> usize {
        self.index(turn).and_then(|index| self.streams.get(index)).map_or(0, |stream| stream.held.len())
    }

    /// Requests that are not done, or wait behind one that is not.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    fn index(&self, turn: Turn) -> Option<usize> {
        usize::try_from(turn.0.checked_sub(self.first)?).ok()
    }

    /// The stream of a request that is not done.
    fn stream(&mut self, turn: Turn) -> Option<&mut Stream<A>> {
        let index = self.index(turn)?;
        self.streams.get_mut(index).filter(|stream| !stream.done || mutant!("answer-after-last"))
    }

    // done -> gone; the next one's answers -> released
    fn advance(&mut self, released: &mut Vec<(Turn, A)>) {
        while self.streams.pop_front_if(|first| first.done).is_some() {
            self.first += 1;
            let turn = Turn(self.first);
            if let Some(next) = self.streams.front_mut() {
                self.held -= next.held.len();
                released.extend(next.held.drain(..).map(|answer| (turn, answer)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AnswerOrder, Turn};

    /// `1a` is an answer of request 1, `1a#` its last one, `1#` says that it is done; `1+` is its arrival.
    /// The answers that each step releases, steps separated by bars.
    fn check(steps: &str, expect: &str) {
        let mut order = AnswerOrder::new();
        let mut log = Vec::new();
        for step in steps.split_whitespace() {
            let mut released = Vec::new();
            let (name, rest) = step.split_at(1);
            let number: u64 = name.parse().unwrap();
            match rest {
                "+" => assert_eq!(order.on_arrival(), Turn(number)),
                "#" => drop(order.on_done(Turn(number), &mut released)),
                answer => {
                    let last = answer.ends_with('#');
                    if !order.on_answer(Turn(number), step, last, &mut released) {
                        released.push((Turn(number), "dropped"));
                    }
                }
            }
            let said: Vec<&str> = released.iter().map(|(_, answer)| *answer).collect();
            log.push(said.join(" "));
        }
        assert_eq!(log.join("|"), expect, "{steps}");
    }

    #[test]
    fn who_is_answered_first_waits_for_those_who_came_before() {
        check("0+ 1+ 2+ 2a# 1a# 0a#", "|||||0a# 1a# 2a#");
        check("0+ 1+ 2+ 1a# 0a# 2a#", "||||0a# 1a#|2a#");
        check("0+ 0a# 1+ 1a#", "|0a#||1a#");
    }

    #[test]
    fn the_first_in_line_streams_and_the_next_waits_for_its_end() {
        check("0+ 1+ 0a 1a 0b 1b# 0c#", "||0a||0b||0c# 1a 1b#");
    }

    #[test]
    fn whose_turn_has_come_streams_on() {
        check("0+ 1+ 2+ 1a 2a# 0a# 1b 1c#", "|||||0a# 1a|1b|1c# 2a#");
    }

    #[test]
    fn a_request_without_answers_holds_up_nobody_when_it_is_done() {
        check("0+ 1+ 2+ 1# 2a# 0a#", "|||||0a# 2a#");
        check("0+ 1+ 1a# 0#", "|||1a#");
    }

    #[test]
    fn what_was_answered_before_the_end_leaves_in_its_turn() {
        check("0+ 1+ 1a 1# 0#", "||||1a");
    }

    #[test]
    fn an_answer_behind_the_last_one_is_dropped() {
        check("0+ 0a# 0b", "|0a#|dropped");
        check("0+ 1+ 1a# 1b 0#", "|||dropped|1a#");
    }

    #[test]
    fn the_gauges_count_what_is_held() {
        let mut order = AnswerOrder::new();
        let (one, two) = (order.on_arrival(), order.on_arrival());
        let mut released = Vec::new();
        assert!(
            order.on_answer(two, 'a', false, &mut released) && order.on_answer(two, 'b', true, &mut released)
        );
        assert_eq!((order.len(), order.held(), order.held_of(two), order.held_of(one)), (2, 2, 2, 0));
        assert!(order.on_done(one, &mut released));
        assert_eq!(released, [(two, 'a'), (two, 'b')]);
        assert!(order.is_empty() && order.held() == 0);
    }
}
