//! What a simulation can find.

use super::event::At;
use crate::invariants::Violation;
use crate::scheduler::Refusal;

/// A promise that was not kept. Requests are named by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("{0}")]
    Broken(#[from] Violation),
    #[error("a panic")]
    Panicked,
    #[error("instance {0} got a batch while it was busy")]
    BatchWhileBusy(At),
    #[error("instance {0} got a batch while it was down")]
    BatchWhileDown(At),
    #[error("instance {0} got a new request though it is retiring")]
    BatchWhileRetiring(At),
    #[error("instance {0} got a batch after it was retired")]
    BatchAfterRetired(At),
    #[error("instance {0} was told another number of requests than it got")]
    OtherThanSaid(At),
    #[error("the instances of model {0} ask again and again at one time")]
    AsksForEver(u32),
    #[error("instance {0} was told that all is over while something waits or runs on")]
    ClosedTooEarly(At),
    #[error("model {model} wants to be woken at {wake} ms, which is not later than now")]
    WakeNotLater { model: u32, wake: u64 },
    #[error("model {model} sleeps over the end of a request at {end} ms")]
    SleepsOverEnd { model: u32, end: u64 },
    #[error("R{request} is next and waits beyond its delay while an instance of model {model} is free")]
    IdleBesideWork { model: u32, request: u64 },
    #[error("model {model} sleeps over the delay of R{request}, which ends at {until} ms")]
    SleepsOverDelay { model: u32, request: u64, until: u64 },
    #[error("R{request} was refused without a reason: {refusal}")]
    RefusedWithoutReason { request: u64, refusal: Refusal },
    #[error("R{0} waited, but its cancellation had no effect")]
    NotCancelled(u64),
    #[error("R{0} was answered twice")]
    AnsweredTwice(u64),
    #[error("R{0} was never answered")]
    NeverAnswered(u64),
    #[error("an answer of R{0} behind its last one was sent")]
    AnswerAfterLast(u64),
    #[error("an answer of R{0} was taken for one behind its last")]
    AnswerDropped(u64),
    #[error("an answer of R{0} left before its turn")]
    BeforeItsTurn(u64),
    #[error("the answers of R{0} are held though it is their turn")]
    HeldInTurn(u64),
    #[error("model {model} says that {said} requests wait; there are {waiting}")]
    PendingGauge { model: u32, said: usize, waiting: usize },
    #[error("model {model} says that {said} requests run; there are {running}")]
    RunningGauge { model: u32, said: usize, running: usize },
    #[error("R{request} got the cached answer of R{of}, which asked for something else")]
    WrongHit { request: u64, of: u64 },
    #[error("R{request} asks for the same as R{of}, whose answer is cached, and was not given it")]
    Missed { request: u64, of: u64 },
    #[error("model {0} does not come to an end though everything that runs is ended")]
    DoesNotDrain(u32),
    #[error("model {0} neither runs anything nor wants to be woken, and is not at its end")]
    Asleep(u32),
    #[error("instance {0} is not retired though nothing is left")]
    NotRetired(At),
}

impl Finding {
    /// Whether both are the same kind of fault.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Broken(one), Self::Broken(two)) => {
                std::mem::discriminant(one) == std::mem::discriminant(two)
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}
