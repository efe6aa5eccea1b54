//! What `explain` and `profile` print.

use anyhow::{Result, bail};
use trireme_llm::executor::Executor;
use trireme_tensorrtllm::executor::padding;
use trireme_tensorrtllm::tuning::Way;
use trireme_tensorrtllm::{CudaExecutor, OfflineModel};

use crate::say;

/// A decode step kernel by kernel.
pub(crate) fn explain(
    model: OfflineModel,
    rows: usize,
    context: Option<usize>,
    fusion: Option<bool>,
) -> Result<()> {
    let model = match fusion {
        Some(on) => model.with_fusion(on),
        None => model,
    };
    let mut executor = model.load()?;
    within("--rows", rows, "sequences", executor.info().max_slots)?;
    let context = positions(context, &executor)?;
    let ceiling = executor.copy_rate()?;
    say(&format!(
        "{}: copies run at {:.0} GB/s; {}",
        executor.device_name(),
        ceiling / 1e9,
        executor.memory_plan()
    ));
    say(&format!(
        "a step of {rows} sequences at {context} positions, fusion {}",
        if model.fuses() { "on" } else { "off" }
    ));
    say(
        "| kernel | launches | computes | MB | us | us each | GB/s | of the floor |\n|---|---|---|---|---|---|---|---|",
    );
    let table = executor.profile_decode(rows, context)?;
    for row in &table {
        let rate = row.bytes as f64 / row.microseconds * 1e6;
        say(&format!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.2} | {:.0} | {:.0} % |",
            row.name,
            row.launches,
            row.fused,
            row.bytes as f64 / 1e6,
            row.microseconds,
            row.microseconds / row.launches as f64,
            rate / 1e9,
            rate / ceiling * 100.0
        ));
    }
    Ok(())
}

/// Every size of decode steps.
pub(crate) fn profile(model: &OfflineModel, context: Option<usize>) -> Result<()> {
    let mut executor = match model.load() {
        Ok(executor) => executor,
        // What needs no GPU is said all the same.
        Err(error) => {
            outline(model)?;
            return Err(error.into());
        }
    };
    let context = positions(context, &executor)?;
    say(&format!("{}: {}", executor.device_name(), executor.memory_plan()));
    say(&OfflineModel::choices(&executor));
    say("| rows | padding, mean | products | graph MB | ms a step | tokens/s |\n|---|---|---|---|---|---|");
    for row in executor.profile_sizes(context)? {
        say(&format!(
            "| {} | {:.1} % | {} | {:.1} | {:.3} | {:.0} |",
            row.rows,
            row.padding * 100.0,
            way(executor.ways(row.rows).0),
            row.graph_bytes as f64 / 1e6,
            row.milliseconds,
            row.rows as f64 / row.milliseconds * 1e3
        ));
    }
    Ok(())
}

/// Positions that a sequence of this model can have.
fn positions(given: Option<usize>, executor: &CudaExecutor) -> Result<usize> {
    let most = executor.info().max_context;
    let context = given.unwrap_or_else(|| most.min(1024));
    within("--context", context, "positions of a sequence", most)?;
    Ok(context)
}

fn within(flag: &str, given: usize, what: &str, most: usize) -> Result<()> {
    if given == 0 || given > most {
        bail!("{flag} is {given}, this model has 1 to {most} {what}");
    }
    Ok(())
}

/// How a step's products are computed.
fn way(way: Way) -> &'static str {
    match way {
        Way::Stream => "fused, copy engine",
        Way::Gated => "cuBLASLt; gate and up fused",
        Way::Few => "fused, few rows",
        Way::Library => "cuBLASLt",
    }
}

/// Memory and sizes without a GPU.
fn outline(model: &OfflineModel) -> Result<()> {
    let outline = model.outline()?;
    say(&format!("without a GPU: {}, if all sequences had their full length", outline.plan));
    say("| rows | padding, mean |\n|---|---|");
    let mut before = 0;
    for rows in outline.sizes {
        say(&format!("| {rows} | {:.1} % |", padding(before, rows) * 100.0));
        before = rows;
    }
    Ok(())
}
