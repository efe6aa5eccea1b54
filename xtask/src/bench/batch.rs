//! `cargo xtask bench batch`: `trireme batch` beside the engine's own benchmark over the same sentences, in turn.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::build::{self, Profile};
use crate::models;
use crate::process;
use crate::workspace::Workspace;

/// What the whole way of a line may cost: reading, tokenising, batching, writing.
const BAR: f64 = 0.95;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds in which each runs once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Lines of the batch
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    lines: u32,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    models::fetch_examples(workspace)?;
    let built = build::server_and_backends(workspace, Profile::Release)?;
    let mut example = process::cargo(&workspace.root);
    example.args(["build", "--release", "--package", "trireme-backend-cpu", "--example", "bench_embed"]);
    process::run(&mut example, "the build")?;
    let folder = workspace.target.join("bench/batch");
    fs::create_dir_all(&folder)?;
    let engine = || -> Result<f64> {
        let mut bench = Command::new(workspace.target.join("release/examples/bench_embed"));
        bench.arg(workspace.model_repository().join("minilm/1"));
        bench.args(["ids.json", "vectors.f32"].map(|name| folder.join(name)));
        bench.args(["--repeat", "9", "--texts"]).arg(folder.join("texts.json"));
        let text = process::output(&mut bench, "bench_embed")?;
        print!("{text}");
        number(&text, "sentences_per_s=", "").with_context(|| text.clone())
    };
    let batch = || -> Result<f64> {
        let output = folder.join("out.jsonl");
        if output.exists() {
            fs::remove_file(&output)?;
        }
        let mut batch = Command::new(&built.server);
        batch.arg("batch").arg("--model-repository").arg(workspace.model_repository());
        batch.args(["--load-model", "minilm", "--input"]).arg(folder.join("in.jsonl"));
        let done = batch.arg("--output").arg(&output).output().context("cannot start trireme batch")?;
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let answered = fs::read_to_string(&output)?.lines().filter(|line| is_good(line)).count();
        if !done.status.success() || answered != args.lines as usize {
            bail!("{answered} of {} lines have a good answer: {text}", args.lines);
        }
        let line = text.lines().find(|line| line.contains("lines answered in")).unwrap_or_default();
        println!("trireme batch: {line}");
        number(line, " s, ", " lines/s").with_context(|| text.clone())
    };
    // Its sentences are the batch's.
    engine()?;
    let texts: Vec<String> = serde_json::from_str(&fs::read_to_string(folder.join("texts.json"))?)?;
    let lines: Vec<String> = texts.iter().cycle().take(args.lines as usize).enumerate().map(line).collect();
    fs::write(folder.join("in.jsonl"), lines.concat())?;
    let (mut rows, mut ratios) = (String::new(), Vec::new());
    for round in 0..args.runs {
        // Another one first each time.
        let (ours, bench) = if round % 2 == 0 {
            let ours = batch()?;
            (ours, engine()?)
        } else {
            let bench = engine()?;
            (batch()?, bench)
        };
        let _ = writeln!(rows, "| {} | {ours:.0} | {bench:.0} | {:.3} |", round + 1, ours / bench);
        ratios.push(ours / bench);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
    let text = format!(
        "{} lines of MiniLM embeddings.\n\n| round | trireme batch, lines/s | bench_embed, sentences/s | ratio |\n|---|---|---|---|\n{rows}\n\
         Median {ratio:.3}, bar {BAR}.\n",
        args.lines
    );
    println!("\n{text}");
    fs::write(folder.join("result.md"), &text)?;
    if ratio < BAR {
        bail!("below the bar");
    }
    Ok(())
}

fn line((at, text): (usize, &String)) -> String {
    let body = json!({ "model": "minilm", "input": text });
    format!(
        "{}\n",
        json!({ "custom_id": format!("c{at}"), "method": "POST", "url": "/v1/embeddings", "body": body })
    )
}

fn is_good(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line["response"]["status_code"] == 200)
}

/// The number behind `before`, up to `after` or the next space.
fn number(text: &str, before: &str, after: &str) -> Result<f64> {
    let missing = || anyhow!("no number behind '{before}'");
    let rest = text.split_once(before).ok_or_else(missing)?.1;
    let word = match after {
        "" => rest.split_whitespace().next(),
        after => rest.split_once(after).map(|(word, _)| word),
    };
    word.and_then(|word| word.trim().parse().ok()).ok_or_else(missing)
}
