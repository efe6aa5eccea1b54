//! Every rule of the schedulers as a scripted time-line on a virtual clock.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cutting;
mod delay;
mod instances;
mod leaving;
mod policies;
mod script;
mod sequence_ends;
mod sequences_direct;
mod sequences_oldest;
mod start;
