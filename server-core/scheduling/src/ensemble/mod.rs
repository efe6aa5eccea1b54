//! Ensembles: which step of a graph of models runs when, and what an answer is made of.
//!
//! [`Graph`] is the static part: who makes a tensor, who uses it, and which answers of a decoupled step it belongs to.
//! [`Flow`] is one request on its way through it, [`Gate`] counts what the requests of one ensemble have in flight.
//!
//! Each answer of a decoupled step runs all that depends on it once more. The tensors of one such run live in a *frame*:
//!
//! ```text
//!   graph        a ─▶ [split*] ─▶ b ─▶ [work] ─▶ c          * decoupled
//!
//!   frames       request ─ a
//!                   ├─ answer 0 of split ─ b, c ─▶ answer
//!                   └─ answer 1 of split ─ b, c ─▶ answer
//! ```
//! A step runs once in every frame of its *stream*, the decoupled step nearest above it; tensors of the frames around it
//! are seen from inside. So two streams can meet in one step only if one of them runs inside the other.

mod flow;
mod frame;
mod gate;
mod graph;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod timelines;

pub use flow::{Action, Flow, RunId};
pub use gate::Gate;
pub use graph::{Graph, GraphError, GraphStep};
