//! A server in the small, for the tests of a backend: it loads the backend through the ABI, sends it requests and keeps
//! the answers. Every wait is bounded, and a request or buffer that the backend keeps fails the test.
//!
//! ```no_run
//! # fn example(probe: &'static trireme_testing::Probe, config: &str) {
//! // `probe` is `&my_crate::trireme_backend_probe`, which `export_backend!` has made.
//! let model = trireme_testing::Model::load(probe, config).unwrap();
//! let answer = model.request().input("INPUT0", &[1, 3], &[1.0f32, 2.0, 3.0]).send().answer();
//! assert_eq!(answer.values::<f32>("OUTPUT0"), [2.0, 4.0, 6.0]);
//! # }
//! ```
//!
//! [`suite!`] makes tests of the promises of the ABI.
#![allow(clippy::disallowed_types, reason = "real threads, real time")]
#![allow(clippy::panic, clippy::expect_used, reason = "a test that cannot go on fails")]

mod answer;
mod config;
mod instances;
mod model;
mod request;
mod sink;
mod suite;

pub use answer::{Answer, Tensor};
pub use instances::Span;
pub use model::Model;
pub use request::{IntoTensor, Pending, Request};
pub use suite::linked;
#[doc(hidden)]
pub use suite::run_as_test;
#[doc(hidden)]
pub use trireme_conformance::CHECKS;
pub use trireme_host::Status;
pub use trireme_host::abi::{Probe, StatusCode};
pub use trireme_sdk::DataType;
