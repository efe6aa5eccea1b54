//! End-to-end tests: a real server, real clients.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "real processes, real time")]

pub mod http;
pub mod pipe;
pub mod places;
pub mod process;
pub mod server;
