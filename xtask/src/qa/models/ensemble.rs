//! `simple_…` (one step), `sequence_…` (its inputs through another model first) and `fan_…` (its outputs too), around the
//! models of the other repositories.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::identity::{self, Pair};
use super::model::{FLOAT32, FORMATS, Model, OBJECT, Tensor, Type, dims};

const KINDS: [&str; 3] = ["simple", "sequence", "fan"];

pub(super) fn write(data: &Path) -> Result<()> {
    let ensembles = data.join("qa_ensemble_model_repository");
    let repository = ensembles.join("qa_model_repository");
    for format in FORMATS.into_iter().filter(|format| !format.is("openvino")) {
        for kind in KINDS {
            let name = format!("{}_float32_float32_float32", format.prefix);
            let tensor = |name: String| Tensor::new(name, FLOAT32, &[16]);
            let inner = ["INPUT0", "INPUT1"].map(|name| tensor(name.to_owned())).to_vec();
            let outer = inner.clone();
            let made: Vec<Tensor> = (0..2).map(|number| tensor(format.numbered("OUTPUT", number))).collect();
            let shown = ["OUTPUT0", "OUTPUT1"].map(|name| tensor(name.to_owned())).to_vec();
            let step = Around { base: name.clone(), inner, outer, made, shown };
            step.write(&repository, kind, &format!("{kind}_{name}"), 8, 3)?;
        }
    }
    let zeros = identity::zeros().into_iter().map(|(data_type, pairs)| (data_type, pairs, true));
    for (folder, label, models) in [
        ("qa_identity_model_repository", "zero", zeros.collect::<Vec<_>>()),
        ("qa_reshape_model_repository", "reshape", identity::reshapes()),
    ] {
        for (data_type, pairs, without_batch) in models.iter().filter(|(data_type, ..)| *data_type != OBJECT)
        {
            for kind in KINDS {
                for max_batch_size in [8, 0] {
                    if max_batch_size > 0 || *without_batch {
                        zero(&ensembles.join(folder), kind, label, max_batch_size, *data_type, pairs)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn zero(
    repository: &Path,
    kind: &str,
    label: &str,
    max_batch_size: u32,
    data_type: Type,
    pairs: &[Pair],
) -> Result<()> {
    let nobatch = if max_batch_size == 0 { "_nobatch" } else { "" };
    let name = format!("{nobatch}_zero_{}_{}", pairs.len(), data_type.0);
    let tensors = |name: &str, shape: fn(&Pair) -> &Vec<i64>| -> Vec<Tensor> {
        let each = pairs.iter().enumerate();
        each.map(|(n, pair)| Tensor::new(format!("{name}{n}"), data_type, shape(pair))).collect()
    };
    let (inputs, outputs) = (tensors("INPUT", |pair| &pair.0), tensors("OUTPUT", |pair| &pair.2));
    let step = Around {
        base: format!("graphdef{name}"),
        inner: inputs.clone(),
        outer: inputs,
        made: outputs.clone(),
        shown: outputs,
    };
    step.write(repository, kind, &format!("{kind}_{label}{name}"), max_batch_size, 1)
}

/// An ensemble around one model: the tensors of the model and those that the ensemble shows.
struct Around {
    base: String,
    inner: Vec<Tensor>,
    outer: Vec<Tensor>,
    made: Vec<Tensor>,
    shown: Vec<Tensor>,
}

impl Around {
    fn write(
        &self,
        repository: &Path,
        kind: &str,
        name: &str,
        max_batch_size: u32,
        versions: u32,
    ) -> Result<()> {
        let (before, after) = (kind != "simple", kind == "fan");
        let mut steps: Vec<String> = Vec::new();
        let (mut ins, mut outs) = (Vec::new(), Vec::new());
        for (inner, outer) in self.inner.iter().zip(&self.outer) {
            let through = format!("{}_through", outer.name);
            if before {
                steps.push(pass(repository, outer, max_batch_size, &outer.name, &through)?);
            }
            ins.push((inner.name.clone(), if before { through } else { outer.name.clone() }));
        }
        let mut last: Vec<String> = Vec::new();
        for (made, shown) in self.made.iter().zip(&self.shown) {
            let through = format!("{}_through", shown.name);
            if after {
                last.push(pass(repository, shown, max_batch_size, &through, &shown.name)?);
            }
            outs.push((made.name.clone(), if after { through } else { shown.name.clone() }));
        }
        steps.push(step(&self.base, &ins, &outs));
        steps.extend(last);
        let extra = format!("ensemble_scheduling {{\n  step [\n{}\n  ]\n}}\n", steps.join(",\n"));
        let model = Model {
            name: name.to_owned(),
            format: None,
            max_batch_size,
            versions,
            version_policy: (versions > 1).then_some("specific { versions: [1, 3] }"),
            inputs: self.outer.clone(),
            outputs: self.shown.clone(),
            extra: format!("platform: \"ensemble\"\n{extra}"),
        };
        model.write(repository)
    }
}

fn step(model: &str, ins: &[(String, String)], outs: &[(String, String)]) -> String {
    let mut text = format!("    {{\n      model_name: \"{model}\"\n      model_version: -1\n");
    for (field, map) in [("input_map", ins), ("output_map", outs)] {
        for (key, value) in map {
            let _ = writeln!(
                text,
                "      {field} {{\n        key: \"{key}\"\n        value: \"{value}\"\n      }}"
            );
        }
    }
    text + "    }"
}

/// A step that only hands a tensor on, and its model.
fn pass(repository: &Path, tensor: &Tensor, max_batch_size: u32, from: &str, to: &str) -> Result<String> {
    let shape = dims(&tensor.dims).replace(", ", "_").replace('-', "m");
    let nobatch = if max_batch_size == 0 { "_nobatch" } else { "" };
    let name = format!("nop{nobatch}_{}_{shape}", tensor.data_type.1);
    let model = Model {
        name: name.clone(),
        format: None,
        max_batch_size,
        versions: 1,
        version_policy: None,
        inputs: vec![Tensor::new("INPUT0", tensor.data_type, &tensor.dims)],
        outputs: vec![Tensor::new("OUTPUT0", tensor.data_type, &tensor.dims)],
        extra: "backend: \"identity\"\n".to_owned(),
    };
    model.write(repository)?;
    Ok(step(&name, &[("INPUT0".to_owned(), from.to_owned())], &[("OUTPUT0".to_owned(), to.to_owned())]))
}
