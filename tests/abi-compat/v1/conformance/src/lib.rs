//! Whether a backend keeps the promises of the ABI. The library is loaded as the server loads it, with every call
//! between the two watched (`TRIREME_ABI_CHECK`), and asked everything that a server may ask.
//!
//! `trireme conformance path/to/libtrireme_x.so --model DIR` runs the [`CHECKS`], each in a process of its own, and
//! prints a [`Report`]. `trireme_testing::suite!` makes them tests of a backend's crate.
//!
//! What a model cannot do, or what the kit cannot guess, is said in a file `conformance.json` beside its `config.pbtxt`:
//! see [`Declared`].
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real threads, real time")]

mod case;
mod checks;
#[doc(hidden)]
pub mod client;
mod compare;
mod config;
mod declared;
mod element;
mod generate;
mod isolate;
mod memory;
mod outcome;
mod replies;
mod running;
mod subject;

pub use checks::{CHECKS, Check};
pub use declared::{Declared, Expectation};
pub use isolate::{Isolation, answer_for, run_apart};
pub use outcome::{Outcome, Report, Row};
pub use subject::{Problem, Source, Subject};
