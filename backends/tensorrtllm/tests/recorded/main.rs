//! The executor on a GPU that computes nothing: `recorder.c`. What is launched and in which order, what a step does when a
//! call fails, what is planned and what is taken, which choices the clock makes and what is kept of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod choices;
mod faults;
mod launches;
mod model;
mod programs;
mod recorder;
