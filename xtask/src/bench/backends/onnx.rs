//! MiniLM in ONNX through the server beside ONNX Runtime called directly with the same batches.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::frontend::loader::http_rate;
use super::super::frontend::servers;
use super::Row;
use crate::build::Profile;
use crate::models;
use crate::process;
use crate::test::python_environment;
use crate::workspace::Workspace;

const BAR: f64 = 1.0;
const MODEL: &str = "minilm_onnx";
/// Sentences of a batch, tokens of a sentence, batches of a run, batches in flight.
type Case = [u32; 4];
/// With two batches in flight the engine is kept busy, as a caller keeps it without a server; the peer is then called by one
/// thread or by two, whichever is faster. With one in flight a rate is that of round trips, in which the engine waits for the
/// client and the wire while a caller waits for nobody: these rows show what a round trip adds.
const CASES: [Case; 6] =
    [[1, 32, 400, 1], [8, 32, 32, 1], [32, 64, 8, 1], [1, 32, 400, 2], [8, 32, 32, 2], [32, 64, 8, 2]];

pub(super) fn rows(workspace: &Workspace, folder: &Path, runs: u32) -> Result<Vec<Row>> {
    if !process::on_path("wrk") {
        bail!("`wrk` is not installed: install it (Debian: `apt install wrk`)");
    }
    let python = python_environment(workspace)?;
    models::fetch_onnxruntime(workspace, Profile::Release)?;
    models::fetch_onnx_examples(workspace)?;
    let repository = workspace.onnx_repository();
    let server = servers::trireme_with(workspace, folder, &repository, |command| {
        command.args(["--model-control-mode=explicit", &format!("--load-model={MODEL}")]);
    })?;
    let model = repository.join(MODEL).join("1/model.onnx");
    let script = workspace.root.join("tests/peers/minilm.py");
    let speak = |more: &[&str], case: Case| -> Result<String> {
        let mut run = Command::new(&python);
        run.arg(&script).args(more).args(case.map(|n| n.to_string()));
        process::output(&mut run, "minilm.py")
    };
    let (model, bodies) = (model.display().to_string(), folder.join("minilm"));
    let (stem, written) = (bodies.join("batch"), bodies.display().to_string());
    let rate = |ours: bool, case: Case| -> Result<f64> {
        let [rows, _, batches, flight] = case;
        if ours {
            // Writes the requests, and holds the answer against ONNX Runtime's. It also waits for the server: wrk leaves with
            // a request on its way, which would be in front of those that are counted.
            speak(&["write", &server.http, &model, &written], case)?;
            let rate = http_rate(workspace, &server, MODEL, &stem, flight, u64::from(batches))?;
            return Ok(rate * f64::from(rows));
        }
        let mut best = 0.0_f64;
        for threads in 1..=flight {
            let text = speak(&["direct", &model], [rows, case[1], batches, threads])?;
            best = best.max(text.trim().parse().with_context(|| format!("minilm.py printed {text}"))?);
        }
        Ok(best)
    };
    let mut made = Vec::new();
    for case in CASES {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for turn in 0..runs {
            // Another one first each time.
            if turn % 2 == 0 {
                ours.push(rate(true, case)?);
                peer.push(rate(false, case)?);
            } else {
                peer.push(rate(false, case)?);
                ours.push(rate(true, case)?);
            }
        }
        let [rows, tokens, _, flight] = case;
        let what = format!("MiniLM, {rows} x {tokens} tokens, {flight} in flight, sentences/s; onnxruntime");
        made.push(Row { what, ours, peer, bar: (flight > 1).then_some(BAR) });
    }
    Ok(made)
}
