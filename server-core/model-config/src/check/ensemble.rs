//! An ensemble as far as its own configuration tells. Whether its steps fit the models they name is seen when those are
//! loaded.

use std::collections::{BTreeMap, BTreeSet};

use trireme_protocol::proto::ModelEnsembling;

use super::Checker;

impl Checker<'_> {
    pub(super) fn ensemble(&mut self, ensemble: &ModelEnsembling) {
        let config = self.config;
        if config.platform != "ensemble" {
            self.error(
                "ensemble_scheduling",
                "a model with ensemble_scheduling needs the platform 'ensemble'",
            )
            .help("add `platform: \"ensemble\"`");
        }
        let not_ours = [
            ("backend", !config.backend.is_empty()),
            ("instance_group", !config.instance_group.is_empty()),
            ("optimization", config.optimization.is_some()),
            ("model_warmup", !config.model_warmup.is_empty()),
        ];
        for (field, _) in not_ours.iter().filter(|(_, given)| *given) {
            self.error(field, format!("an ensemble has no {field}: it computes nothing itself"));
        }
        if ensemble.step.is_empty() {
            self.error("ensemble_scheduling", "an ensemble needs at least one step");
        }
        self.steps(ensemble);
        self.dataflow(ensemble);
        self.circle(ensemble);
    }

    fn steps(&mut self, ensemble: &ModelEnsembling) {
        for (number, step) in ensemble.step.iter().enumerate() {
            let path = format!("ensemble_scheduling.step.{number}");
            if step.model_name.is_empty() {
                self.error(&path, "the step has no model_name");
            }
            if step.model_name == self.config.name {
                self.error(&format!("{path}.model_name"), "the ensemble is a step of itself");
            }
            if step.model_version < -1 {
                let message = format!(
                    "model_version is {}; it must be a version, or -1 for the newest",
                    step.model_version
                );
                self.error(&format!("{path}.model_version"), message);
            }
            for (field, map) in [("input_map", &step.input_map), ("output_map", &step.output_map)] {
                if map.is_empty() {
                    self.error(&path, format!("the step of model '{}' has no {field}", step.model_name));
                }
            }
        }
    }

    /// Every tensor is made once, by a request or a step, and then used, by a step or an answer.
    fn dataflow(&mut self, ensemble: &ModelEnsembling) {
        let config = self.config;
        let mut made: BTreeSet<&str> = config.input.iter().map(|input| input.name.as_str()).collect();
        for (number, step) in ensemble.step.iter().enumerate() {
            for (output, tensor) in &step.output_map {
                if !made.insert(tensor) {
                    let message = format!(
                        "tensor '{tensor}' is made twice, here as '{output}' of '{}'",
                        step.model_name
                    );
                    self.error(&format!("ensemble_scheduling.step.{number}.output_map.{output}"), message);
                }
            }
        }
        let mut used: BTreeSet<&str> = config.output.iter().map(|output| output.name.as_str()).collect();
        for (number, step) in ensemble.step.iter().enumerate() {
            for (input, tensor) in &step.input_map {
                used.insert(tensor);
                if !made.contains(tensor.as_str()) {
                    let message = format!(
                        "tensor '{tensor}', the '{input}' of '{}', is made by no step",
                        step.model_name
                    );
                    self.error(&format!("ensemble_scheduling.step.{number}.input_map.{input}"), message);
                }
            }
        }
        for (number, output) in config.output.iter().enumerate() {
            if !made.contains(output.name.as_str()) {
                let message = format!("output '{}' is made by no step", output.name);
                self.error(&format!("output.{number}.name"), message);
            }
        }
        for (number, input) in config.input.iter().enumerate() {
            if !used.contains(input.name.as_str()) {
                self.error(
                    &format!("input.{number}.name"),
                    format!("input '{}' is used by no step", input.name),
                );
            }
        }
        for (number, step) in ensemble.step.iter().enumerate() {
            for (output, tensor) in
                step.output_map.iter().filter(|(_, tensor)| !used.contains(tensor.as_str()))
            {
                let message =
                    format!("tensor '{tensor}', the '{output}' of '{}', is used by nobody", step.model_name);
                self.error(&format!("ensemble_scheduling.step.{number}.output_map.{output}"), message)
                    .help("leave it out of the output_map");
            }
        }
    }

    /// Steps that wait for each other: what is left when those that can run have run.
    fn circle(&mut self, ensemble: &ModelEnsembling) {
        let makers: BTreeMap<&str, usize> = ensemble
            .step
            .iter()
            .enumerate()
            .flat_map(|(number, step)| step.output_map.values().map(move |tensor| (tensor.as_str(), number)))
            .collect();
        let waits_for = |number: usize| {
            ensemble.step[number].input_map.values().filter_map(|tensor| makers.get(tensor.as_str()).copied())
        };
        let mut left: BTreeSet<usize> = (0..ensemble.step.len()).collect();
        while let Some(next) =
            left.iter().copied().find(|step| waits_for(*step).all(|one| !left.contains(&one)))
        {
            left.remove(&next);
        }
        // Against the direction of the tensors from any of them: who is met twice waits for itself.
        let (mut way, mut at) = (Vec::new(), left.first().copied());
        while let Some(step) = at.filter(|step| !way.contains(step)) {
            way.push(step);
            at = waits_for(step).find(|one| left.contains(one));
        }
        let Some(first) = at else { return };
        let start = way.iter().position(|step| *step == first).unwrap_or(0);
        let names: Vec<&str> =
            way[start..].iter().rev().map(|step| ensemble.step[*step].model_name.as_str()).collect();
        let begin = names.first().copied().unwrap_or_default();
        let message = format!("the steps wait for each other: {} -> {begin}", names.join(" -> "));
        self.error(&format!("ensemble_scheduling.step.{first}"), message);
    }
}
