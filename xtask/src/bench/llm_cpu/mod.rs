//! `cargo xtask bench llm-cpu`: our CPU engine beside llama.cpp and onnxruntime, the same files, in turn.

mod engines;
mod report;

use std::path::PathBuf;

use anyhow::{Result, bail};

use self::engines::{Decoding, Engines};
use self::report::{Figures, Report};
use crate::models;
use crate::workspace::Workspace;

/// Streams that decode together, and how often one's tokens per second they must reach.
const STREAMS: usize = 8;
const STREAMS_BAR: f64 = 2.5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Our threads, onnxruntime's, and the most of llama.cpp's; all cores without it
    #[arg(long)]
    threads: Option<usize>,
    /// Rounds in which each engine runs once; each run gives the median of three passes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The decoder, a GGUF file; SmolLM2 of the example models without it
    #[arg(long)]
    model: Option<PathBuf>,
    /// Tokens before the prompt that is measured
    #[arg(long, value_delimiter = ',', default_value = "0,2048")]
    contexts: Vec<usize>,
    /// Only the part named: decoder, streams or encoder
    #[arg(long, value_parser = ["decoder", "streams", "encoder"])]
    only: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    models::fetch_examples(workspace)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(cores);
    let model = match &args.model {
        Some(path) => std::path::absolute(path)?,
        None => workspace.model_repository().join("smollm2/1/model.gguf"),
    };
    let engines = Engines::install(workspace, model, threads)?;
    let wanted = |part: &str| args.only.as_deref().is_none_or(|only| only == part);
    let mut report = Report::default();
    if wanted("decoder") {
        decoder(&engines, args, &mut report)?;
    }
    if wanted("streams") {
        streams(&engines, args, &mut report)?;
    }
    if wanted("encoder") {
        encoder(&engines, args, &mut report)?;
    }
    let text = report.text();
    println!("\n{text}");
    let path = workspace.target.join("bench/llm-cpu/result.md");
    std::fs::write(&path, &text)?;
    println!("left in {}", workspace.shown(&path));
    let missed = report.missed();
    if !missed.is_empty() {
        bail!("below the bar: {}", missed.join(", "));
    }
    Ok(())
}

/// One stream beside llama.cpp, whose threads for prompts and for decoding are those that it is fastest with.
fn decoder(engines: &Engines, args: &Args, report: &mut Report) -> Result<()> {
    let mut best = [(0.0, 1), (0.0, 1)];
    for threads in 1..=engines.threads {
        let seen = engines.llama_cpp(Decoding::of(0, 1), [threads; 2])?;
        for (best, name) in best.iter_mut().zip(["prefill_tokens_per_s", "decode_tokens_per_s"]) {
            if seen.get(name)? > best.0 {
                *best = (seen.get(name)?, threads);
            }
        }
    }
    let threads = best.map(|(_, threads)| threads);
    report.note(format!(
        "llama.cpp at its best: {} threads for prompts, {} for decoding; ours {} for both.",
        threads[0], threads[1], engines.threads
    ));
    for &context in &args.contexts {
        let case = Decoding::of(context, 1);
        let mut pairs: Vec<(Figures, Figures)> = Vec::new();
        for run in 0..args.runs {
            // Another one first each time.
            let (ours, theirs) = if run % 2 == 0 {
                let ours = engines.trireme(case)?;
                (ours, engines.llama_cpp(case, threads)?)
            } else {
                let theirs = engines.llama_cpp(case, threads)?;
                (engines.trireme(case)?, theirs)
            };
            pairs.push((ours, theirs));
        }
        for (what, name) in [("prompt", "prefill_tokens_per_s"), ("decode", "decode_tokens_per_s")] {
            report.compare(&format!("{what} at {context}, tokens/s"), "llama.cpp", name, &pairs, 1.0)?;
        }
        let shares: Vec<String> = pairs.iter().map(|(ours, _)| ours.text("bandwidth_share")).collect();
        report.note(format!(
            "Share of the memory bandwidth of the same run while decoding at {context}: {} (of {} GB/s).",
            shares.join(", "),
            pairs.iter().map(|(ours, _)| ours.text("bandwidth_gb_per_s")).collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(())
}

/// Eight streams beside one of our own.
fn streams(engines: &Engines, args: &Args, report: &mut Report) -> Result<()> {
    let mut pairs = Vec::new();
    for _ in 0..args.runs {
        let many = engines.trireme(Decoding::of(0, STREAMS))?;
        pairs.push((many, engines.trireme(Decoding::of(0, 1))?));
    }
    let what = format!("decode, {STREAMS} streams, tokens/s");
    report.compare(&what, "one stream", "decode_tokens_per_s", &pairs, STREAMS_BAR)
}

fn encoder(engines: &Engines, args: &Args, report: &mut Report) -> Result<()> {
    let mut pairs = Vec::new();
    for _ in 0..args.runs {
        // Ours first: it leaves the sentences' ids and the vectors that the peer compares.
        let ours = engines.trireme_embed()?;
        pairs.push((ours, engines.onnxruntime()?));
    }
    report.compare("MiniLM, FP32, sentences/s", "onnxruntime", "sentences_per_s", &pairs, 1.0)
}
