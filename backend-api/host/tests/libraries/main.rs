//! Real libraries of other languages and ages, built by these tests and loaded as the server loads them.
#![allow(clippy::unwrap_used)]

mod ages;
mod c_backend;
mod liar;
mod probes;
mod reload;
mod support;
