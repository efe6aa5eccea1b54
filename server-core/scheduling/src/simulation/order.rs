//! The order of answers, checked from outside.

use std::collections::VecDeque;

use super::finding::Finding;
use crate::answers::{AnswerOrder, Turn};

/// An answer: the place of its request in the order of arrivals, and its number.
type Answer = (u64, u32);

#[derive(Debug)]
struct Stream {
    request: u64,
    turn: Turn,
    given: u32,
    sent: u32,
    done: bool,
}

/// What was given and what was sent, beside an [`AnswerOrder`] that decides it.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    order: AnswerOrder<Answer>,
    /// From the first whose answers are not all sent.
    streams: VecDeque<Stream>,
    first: u64,
    released: Vec<(Turn, Answer)>,
}

impl Ordered {
    /// The request's place.
    pub(super) fn on_arrival(&mut self, request: u64) -> u64 {
        let turn = self.order.on_arrival();
        self.streams.push_back(Stream { request, turn, given: 0, sent: 0, done: false });
        self.first + self.streams.len() as u64 - 1
    }

    /// # Errors
    /// An answer behind the last one was taken, or another one dropped; what was sent was not in order, or
    /// could have been more.
    pub(super) fn on_answer(&mut self, request: u64, place: u64, last: bool) -> Result<(), Finding> {
        let Some(stream) = place.checked_sub(self.first).and_then(|at| self.streams.get_mut(at as usize))
        else {
            // All of it was sent; the turn is gone with it.
            return Ok(());
        };
        let was_done = stream.done;
        if !was_done {
            stream.given += 1;
            stream.done = last;
        }
        let answer = (place, stream.given);
        let turn = stream.turn;
        let taken = self.order.on_answer(turn, answer, last, &mut self.released);
        match (taken, was_done) {
            (true, true) => Err(Finding::AnswerAfterLast(request)),
            (false, false) => Err(Finding::AnswerDropped(request)),
            _ => self.check(),
        }
    }

    /// The request has no answer to wait for any more.
    ///
    /// # Errors
    /// As for an answer.
    pub(super) fn on_done(&mut self, place: u64) -> Result<(), Finding> {
        let Some(stream) = place.checked_sub(self.first).and_then(|at| self.streams.get_mut(at as usize))
        else {
            return Ok(());
        };
        stream.done = true;
        let turn = stream.turn;
        self.order.on_done(turn, &mut self.released);
        self.check()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.order.is_empty()
    }

    fn check(&mut self) -> Result<(), Finding> {
        for (_, (place, number)) in self.released.drain(..) {
            while self.streams.pop_front_if(|first| first.done && first.sent == first.given).is_some() {
                self.first += 1;
            }
            let at = place.checked_sub(self.first).map(|at| at as usize);
            match at.and_then(|at| Some((at, self.streams.get_mut(at)?))) {
                Some((0, stream)) if stream.sent + 1 == number => stream.sent = number,
                Some((_, stream)) => return Err(Finding::BeforeItsTurn(stream.request)),
                None => return Err(Finding::AnswerAfterLast(place)),
            }
        }
        while self.streams.pop_front_if(|first| first.done && first.sent == first.given).is_some() {
            self.first += 1;
        }
        match self.streams.front() {
            Some(first) if first.sent < first.given => Err(Finding::HeldInTurn(first.request)),
            _ => Ok(()),
        }
    }
}
