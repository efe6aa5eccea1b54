//! Blocks of keys and values: who holds which, and what is in them.

mod hash;
mod pool;

pub use hash::{BlockHash, block_hash, root_hash};
pub use pool::{BlockPool, KvStats};
