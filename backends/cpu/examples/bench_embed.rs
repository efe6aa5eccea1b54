//! Sentences per second of an encoder: `bench_embed CHECKPOINT IDS VECTORS [--threads N] [--repeat N] [--texts FILE]`.
//!
//! 256 short sentences are tokenised, then embedded together. Leaves their ids (JSON) in `IDS` and the vectors (f32) in
//! `VECTORS`, for a peer to run and to compare, with `--texts` the sentences as a list in JSON, and prints one line of
//! `name=value` pairs with the median.
// A benchmark prints and measures.
#![allow(clippy::print_stdout, clippy::disallowed_types)]

use std::path::Path;
use std::time::Instant;

use trireme_cpu::{BertModel, Options};
use trireme_llm::checkpoint::Checkpoint;

const USAGE: &str = "usage: bench_embed CHECKPOINT IDS VECTORS [--threads N] [--repeat N] [--texts FILE]";

const WHO: [&str; 8] = [
    "A man",
    "The old fisherman",
    "My neighbour's daughter",
    "Nobody in the office",
    "She",
    "The committee",
    "A small brown dog",
    "Our train driver",
];
const WHAT: [&str; 8] = [
    "is eating bread",
    "sold two tickets for the concert",
    "waits",
    "forgot the password again",
    "is reading about whales and other animals",
    "plays the violin",
    "never answers the telephone",
    "looked at the map, puzzled",
];
const WHERE: [&str; 4] =
    [".", " in the garden.", " on a rainy day in November.", " because the shop was closed."];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut path = || args.next().ok_or(USAGE);
    let (checkpoint, ids_file, vectors_file) = (path()?, path()?, path()?);
    let (mut threads, mut repeat) = (0, 5);
    let mut texts_file = None;
    while let Some(flag) = args.next() {
        let value = args.next().ok_or("a flag needs a value")?;
        match flag.as_str() {
            "--threads" => threads = value.parse()?,
            "--repeat" => repeat = value.parse()?,
            "--texts" => texts_file = Some(value),
            other => return Err(format!("unknown flag '{other}'; {USAGE}").into()),
        }
    }
    let checkpoint = Checkpoint::open(Path::new(&checkpoint))?;
    let tokenizer = checkpoint.tokenizer()?;
    let mut model = BertModel::load(&checkpoint, Options { threads, ..Options::default() })?;
    let (mut texts, mut sentences) = (Vec::new(), Vec::new());
    for who in WHO {
        for what in WHAT {
            for place in WHERE {
                let sentence = format!("{who} {what}{place}");
                texts.push(tokenizer.encode(&sentence, true)?);
                sentences.push(sentence);
            }
        }
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let vectors = model.embed(&texts)?;
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(vectors_file, bytes)?;
    std::fs::write(ids_file, format!("{texts:?}"))?;
    if let Some(file) = texts_file {
        // They are of letters and marks that JSON writes as Rust does.
        std::fs::write(file, format!("{sentences:?}"))?;
    }
    let mut seconds: Vec<f64> = Vec::new();
    for _ in 0..repeat {
        let start = Instant::now();
        std::hint::black_box(model.embed(&texts)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).ok_or("--repeat must be at least 1")?;
    println!(
        "engine=trireme kernels={} threads={} sentences={} tokens={tokens} sentences_per_s={:.1}",
        model.kernels(),
        model.threads(),
        texts.len(),
        texts.len() as f64 / median,
    );
    Ok(())
}
