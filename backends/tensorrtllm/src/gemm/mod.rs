//! Matrix products of many rows, through cuBLASLt.

mod lt;
mod tune;

pub use lt::{Gemm, Kind, Product};
