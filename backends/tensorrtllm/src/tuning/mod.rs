//! Choices that the clock made, and where they are kept from one load to the next.
//!
//! Three things are chosen for a model on a GPU: cuBLASLt's algorithm for a product of a bucket of rows, how the blocks of
//! an own product are laid out, and for each size of decode steps whether its products are own ones or cuBLASLt's. Each
//! takes seconds to time, and two timings of one thing differ: a table that is kept makes a load short, and two loads alike.

mod choose;
mod key;
mod session;
mod store;
mod table;

pub use choose::{fastest, steady};
pub use key::{Key, ModelShape};
pub use session::Session;
pub(crate) use store::put;
pub use store::{Origin, Report, Store, default_folder};
pub use table::{AlgorithmEntry, LayoutEntry, Products, Table, Way, WayEntry};

#[cfg(test)]
mod testing {
    use super::*;
    use crate::executor::EarlyLaunch;

    /// An A100 and a small model.
    pub(super) fn key() -> Key {
        let model = ModelShape {
            layers: 1,
            hidden: 64,
            intermediate: 64,
            heads: 1,
            kv_heads: 1,
            head_dim: 64,
            vocab: 8,
            head_norms: false,
        };
        Key {
            device: "NVIDIA A100-SXM4-80GB".into(),
            capability: (8, 0),
            multiprocessors: 108,
            driver: 13000,
            cublaslt: 130_100,
            kernels: "k".into(),
            graphs: true,
            early: EarlyLaunch::OFF,
            timing: Key::TIMING,
            context: 1024,
            model,
        }
    }

    /// One entry.
    pub(super) fn table(us: f32) -> Table {
        let times = vec![(Way::Few, us)];
        Table { ways: vec![WayEntry { rows: 8, products: Products::Head, times }], ..Table::default() }
    }

    /// That entry.
    pub(super) fn ways(table: &Table) -> Option<Vec<(Way, f32)>> {
        table.ways(Products::Head, 8).map(<[_]>::to_vec)
    }
}
