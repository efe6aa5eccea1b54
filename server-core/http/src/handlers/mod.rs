//! One file a group of calls.

mod fields;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod infer;
pub(crate) mod memory;
pub(crate) mod models;
pub(crate) mod orca;
pub(crate) mod page;
pub(crate) mod repository;
pub(crate) mod settings;
mod tensors;
