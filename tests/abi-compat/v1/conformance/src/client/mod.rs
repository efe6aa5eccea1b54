//! The server in the small that a backend under test sees: what it holds, where its answers go, what it may ask for. Also
//! that of `trireme-testing`; not for others.

mod live;
mod mailbox;
mod services;

pub use live::{Counted, Live, Token};
pub use mailbox::{Entrance, Mailbox};
pub use services::{Services, now_ns};
