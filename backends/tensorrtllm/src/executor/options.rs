//! What an executor may be told.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tuning::Store;

/// Settings of an executor.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which GPU.
    pub device: usize,
    /// Sequences at a time.
    pub max_slots: usize,
    /// Rows of a step.
    pub max_step_tokens: usize,
    /// Longest sequence; the model's own context if not given.
    pub max_context: Option<usize>,
    /// Share of the memory left after weights and workspaces that becomes KV blocks.
    pub kv_fraction: f32,
    /// Most tokens of KV memory.
    pub max_kv_tokens: Option<usize>,
    /// Whether decode steps run as CUDA graphs.
    pub graphs: bool,
    /// Graphs that are kept at most; steps of further sizes are launched kernel by kernel.
    pub max_graphs: Option<usize>,
    /// Sizes that are recorded at load beside the usual ones.
    pub first_graphs: Vec<usize>,
    /// The sizes that decode steps are padded to; empty for the usual ladder.
    pub decode_sizes: Vec<usize>,
    /// Which kernels may start before the one in front has ended.
    pub early: EarlyLaunch,
    /// Whether prefill attention uses Hopper's own instructions where it can.
    pub sm90_prefill: bool,
    /// The same for products of up to 128 rows and for decode attention.
    pub sm90_decode: bool,
    /// Most rows for which the kernels for few rows are taken instead of cuBLASLt where there are none of Hopper's, at most
    /// 16: from 9 on cuBLASLt is faster. 0 takes cuBLASLt for all.
    pub skinny_rows: usize,
    /// Whether a row's result is the same to the last bit in any company.
    pub deterministic: bool,
    /// Whether algorithms, layouts and ways are chosen by the clock at load.
    pub tune: bool,
    /// Time for choosing ways. When it is over, smaller sizes take the way of the next larger one that was timed; a later
    /// load goes on with them. One size is always timed.
    pub ways_within: Duration,
    /// Where such choices are kept.
    pub tuning: Store,
    /// The folder for code that NVRTC has made; none is kept without one.
    pub kernel_cache: Option<PathBuf>,
}

/// Kernels that start before the one in front of them has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyLaunch {
    /// Those that are no products of few rows.
    pub rows: bool,
    /// The products of few rows.
    pub products: bool,
    /// A product lets the next kernel start when it has read its weights, not at its own start.
    pub late: bool,
}

impl EarlyLaunch {
    pub const OFF: Self = Self { rows: false, products: false, late: false };
    /// What was fastest on Hopper: docs/performance.md.
    pub const ALL: Self = Self { rows: true, products: true, late: true };
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: 0,
            max_slots: 256,
            max_step_tokens: 8192,
            max_context: None,
            kv_fraction: 0.9,
            max_kv_tokens: None,
            graphs: true,
            max_graphs: None,
            first_graphs: Vec::new(),
            decode_sizes: Vec::new(),
            early: EarlyLaunch::ALL,
            sm90_prefill: true,
            sm90_decode: true,
            skinny_rows: 8,
            deterministic: false,
            tune: true,
            ways_within: Duration::from_secs(3),
            tuning: Store::default(),
            kernel_cache: None,
        }
    }
}
