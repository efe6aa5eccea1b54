//! The end of a server: it may go once every answer that it owes has left the machine, and not before.
//!
//! ```text
//! request read ─▶ Debt ─▶ Settling (body) ─▶ Owed (chunk) ─▶ Wire (socket full?) ─▶ the system's send buffer
//! ```
//! A connection of its own says nothing of this: hyper lets a body go before it has written it, and a connection may be
//! open without anything on it. So what is owed is carried by that which is not yet written: first the request, then its
//! body, then each chunk, for which HTTP/2 may wait long after the body is gone.
#![forbid(unsafe_code)]

mod backlog;
mod body;
mod debts;
mod late;
mod stage;
mod unsent;
mod wire;

pub use backlog::backlog;
pub use body::{Owed, Settling};
pub use debts::{Debt, Debts};
pub use stage::Stage;
pub use wire::Wire;
