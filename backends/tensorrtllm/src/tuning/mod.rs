//! Choices that the clock made, and where they are kept from one load to the next.
//!
//! Three things are chosen for a model on a GPU: cuBLASLt's algorithm for a product of a bucket of rows, how the blocks of
//! an own product are laid out, and for each size of decode steps whether its products are own ones or cuBLASLt's. Each
//! takes seconds to time, and two timings of one thing differ: a table that is kept makes a load short, and two loads alike.

mod choose;
mod key;
mod store;
mod table;

pub use choose::fastest;
pub use key::{Key, ModelShape};
pub use store::{Origin, Report, Store, default_folder};
pub use table::{AlgorithmEntry, LayoutEntry, Products, Table, Way, WayEntry};
