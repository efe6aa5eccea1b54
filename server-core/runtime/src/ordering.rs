//! `preserve_ordering`: the answers of a model leave in the order in which its requests arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use trireme_scheduling::{AnswerOrder, Turn};

use crate::journey::{Journey, Letter};
use crate::statistics::lock;

/// Holds letters back until it is their turn.
#[derive(Default)]
pub(crate) struct Ordering {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    order: AnswerOrder<Letter>,
    /// Whose turn it is, until the last letter has left.
    journeys: HashMap<Turn, Arc<Journey>>,
    /// Reused from letter to letter.
    released: Vec<(Turn, Letter)>,
}

impl Ordering {
    /// A request has entered the queue; called in the order of arrival.
    pub(crate) fn enter(&self, journey: &Arc<Journey>) {
        let mut state = lock(&self.state);
        let turn = state.order.on_arrival();
        if journey.take_turn(turn) {
            state.journeys.insert(turn, Arc::clone(journey));
        }
    }

    /// A letter of the request whose turn is `turn`. Letters are handed over under the lock, which makes the order.
    pub(crate) fn send(&self, turn: Turn, letter: Letter) {
        let mut state = lock(&self.state);
        let last = !matches!(&letter, Ok(item) if !item.is_final);
        let State { order, journeys, released } = &mut *state;
        order.on_answer(turn, letter, last, released);
        let mut done = Vec::new();
        for (turn, letter) in released.drain(..) {
            let last = !matches!(&letter, Ok(item) if !item.is_final);
            if let Some(journey) = journeys.get(&turn) {
                journey.deliver(letter);
            }
            if last {
                done.extend(journeys.remove(&turn));
            }
        }
        drop(state);
        // A journey may be the last to hold what it was sent.
        drop(done);
    }

    /// Letters of the request that wait for their turn.
    pub(crate) fn held(&self, turn: Turn) -> usize {
        lock(&self.state).order.held_of(turn)
    }
}
