//! Checks and measures the engine on a GPU: `gpu_check [kernels] [sampling] [parity] [bench] [profile] …`.
//!
//! It is built where there is no GPU and carried to one: it compiles nothing. Kernels and sampling are held against
//! double precision computed here; whole models against PyTorch, by `parity.py` beside this file.
// A program that prints and measures.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a check stops at the first surprise, with a message on the terminal"
)]

mod attention;
mod bench;
mod driver;
mod figures;
mod kernels;
mod modes;
mod parity;
mod random;
mod sampling;
mod shapes;
mod streams;
mod tiles;
mod traffic;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = ["kernels", "sampling", "attention"].map(String::from).to_vec();
    }
    let mut failed = 0;
    for name in &wanted {
        let start = Instant::now();
        let outcome = match name.as_str() {
            "kernels" => kernels::run(),
            "tiles" => kernels::tiles(),
            "streams" => kernels::streams(),
            "sampling" => sampling::run(),
            "attention" => attention::check(),
            "attention-bench" => attention::bench(),
            "parity" => parity::run(),
            "ceilings" => bench::ceilings(),
            "prefill" => bench::prefill(),
            "bench" => bench::decode(),
            "early" => bench::early(),
            "figures" => figures::run(),
            "graphs" => modes::run(),
            "profile" => bench::profile(),
            "traffic" => traffic::run(),
            "ready" => bench::ready(),
            other => Err(format!("there is no check '{other}'").into()),
        };
        match outcome {
            Ok(()) => println!("ok    {name} ({:.1} s)", start.elapsed().as_secs_f64()),
            Err(error) => {
                println!("FAIL  {name}: {error}");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a check says when it fails.
type Outcome = Result<(), Box<dyn std::error::Error>>;
