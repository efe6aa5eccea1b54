//! `cargo xtask bench llm-cpu`: our CPU engine and llama.cpp on the same file and the same threads, in turn.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::models;
use crate::process;
use crate::workspace::Workspace;

/// llama.cpp as a prebuilt package of npm.
const LLAMA_CPP: [&str; 2] = ["node-llama-cpp@3.22.1", "@node-llama-cpp/linux-x64@3.22.1"];

/// Ours over llama.cpp's tokens a second that the median must reach.
const BARS: [(&str, f64); 2] = [("decode_tokens_per_s", 0.8), ("prefill_tokens_per_s", 0.5)];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Threads for both; all cores without it
    #[arg(long)]
    threads: Option<usize>,
    /// Runs of each engine, in turn; each is a median of five
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    models::fetch_examples(workspace)?;
    let model = workspace.model_repository().join("smollm2/1/model.gguf");
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .to_string();
    let mut build = process::cargo(&workspace.root);
    build.args(["build", "--release", "--package", "trireme-backend-cpu", "--example", "bench_llm"]);
    process::run(&mut build, "the build of bench_llm")?;
    let peer = install_peer(workspace)?;

    let mut ratios: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..args.runs {
        let mut ours = Command::new(workspace.target.join("release/examples/bench_llm"));
        let ours = figures(ours.arg(&model).args(["--threads", &threads]), "bench_llm")?;
        let mut theirs = Command::new("node");
        let script = workspace.root.join("backends/cpu/bench/llama_cpp.mjs");
        let theirs =
            figures(theirs.current_dir(&peer).arg(script).arg(&model).arg(&threads), "llama_cpp.mjs")?;
        for (name, _) in BARS {
            ratios.entry(name).or_default().push(value(&ours, name)? / value(&theirs, name)?);
        }
    }
    let mut missed = Vec::new();
    for (name, bar) in BARS {
        let mut values = ratios.remove(name).unwrap_or_default();
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        println!(
            "{name}: trireme over llama.cpp {median:.2} [{:.2}, {:.2}], bar {bar:.2}",
            values[0],
            values[values.len() - 1]
        );
        if median < bar {
            missed.push(name);
        }
    }
    if !missed.is_empty() {
        bail!("below the bar: {}", missed.join(", "));
    }
    Ok(())
}

fn install_peer(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("peers/llama.cpp");
    if !folder.join("node_modules/node-llama-cpp").is_dir() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        println!("installing llama.cpp into {} (85 MB, once)", workspace.shown(&folder));
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--prefix"]);
        process::run(npm.arg(&folder).args(LLAMA_CPP), "npm install of llama.cpp")?;
    }
    Ok(folder)
}

/// Runs an engine's bench, shows its line and reads its `name=value` pairs.
fn figures(command: &mut Command, what: &str) -> Result<String> {
    let text = process::output(command, what)?;
    print!("{text}");
    Ok(text)
}

fn value(text: &str, name: &str) -> Result<f64> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .filter(|value: &f64| *value > 0.0)
        .ok_or_else(|| anyhow!("no {name}=… in: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read() {
        let text = "engine=x decode_tokens_per_s=12.5 prefill_tokens_per_s=0\n";
        assert_eq!(value(text, "decode_tokens_per_s").unwrap(), 12.5);
        assert!(value(text, "prefill_tokens_per_s").is_err());
        assert!(value(text, "other").is_err());
    }
}
