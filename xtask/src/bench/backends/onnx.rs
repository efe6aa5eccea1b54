//! MiniLM in ONNX through the server beside ONNX Runtime called directly with the same batches.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::super::frontend::servers;
use super::Row;
use crate::build::Profile;
use crate::models;
use crate::process;
use crate::test::python_environment;
use crate::workspace::Workspace;

const BAR: f64 = 1.0;
/// Sentences of a batch, tokens of a sentence, batches of a run, batches in flight.
type Case = [u32; 4];
const CASES: [Case; 4] = [[1, 32, 120, 1], [8, 32, 32, 1], [32, 64, 8, 1], [8, 32, 32, 2]];

pub(super) fn rows(workspace: &Workspace, folder: &Path, runs: u32) -> Result<Vec<Row>> {
    let python = python_environment(workspace)?;
    models::fetch_onnxruntime(workspace, Profile::Release)?;
    models::fetch_onnx_examples(workspace)?;
    let repository = workspace.onnx_repository();
    let server = servers::trireme_with(workspace, folder, &repository, |command| {
        command.args(["--model-control-mode=explicit", "--load-model=minilm_onnx"]);
    })?;
    let model = repository.join("minilm_onnx/1/model.onnx");
    let script = workspace.root.join("tests/peers/minilm.py");
    let rate = |ours: bool, case: Case| -> Result<f64> {
        let mut run = Command::new(&python);
        run.arg(&script);
        match ours {
            true => run.args(["server", &server.http]),
            false => run.arg("direct").arg(&model),
        };
        let text = process::output(run.args(case.map(|n| n.to_string())), "minilm.py")?;
        text.trim().parse().with_context(|| format!("minilm.py printed {text}"))
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
        made.push(Row { what, ours, peer, bar: BAR });
    }
    Ok(made)
}
