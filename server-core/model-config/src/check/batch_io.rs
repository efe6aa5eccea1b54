//! Inputs that the server makes from a batch, and outputs that it cuts by one.

use std::collections::BTreeSet;

use trireme_protocol::DataType;

use super::Checker;

impl Checker<'_> {
    pub(super) fn batch_inputs(&mut self) {
        let config = self.config;
        if self.is_ensemble() && !(config.batch_input.is_empty() && config.batch_output.is_empty()) {
            let field = if config.batch_input.is_empty() { "batch_output" } else { "batch_input" };
            self.error(field, "an ensemble has no batches of its own").help("put it into the step's model");
        }
        let mut names = BTreeSet::new();
        for (number, input) in config.batch_input.iter().enumerate() {
            let path = format!("batch_input.{number}");
            if input.target_name.is_empty() {
                self.error(&path, "the batch_input has no target_name");
            }
            for (place, target) in input.target_name.iter().enumerate() {
                let taken = config.input.iter().any(|input| input.name == *target) || !names.insert(target);
                if taken {
                    let message = format!("the batch_input '{target}' has the name of another input");
                    self.error(&format!("{path}.target_name.{place}"), message);
                }
            }
            if input.source_input.len() != 1 {
                let message =
                    format!("the batch_input has {} source_input; it needs 1", input.source_input.len());
                self.error(&format!("{path}.source_input"), message);
            }
            if !matches!(DataType::from_proto(input.data_type), Some(DataType::Int32 | DataType::Fp32)) {
                let message = "the batch_input has a data_type that is neither TYPE_INT32 nor TYPE_FP32";
                self.error(&format!("{path}.data_type"), message);
            }
            self.sources(&path, &input.source_input);
        }
    }

    pub(super) fn batch_outputs(&mut self) {
        let config = self.config;
        for (number, output) in config.batch_output.iter().enumerate() {
            let path = format!("batch_output.{number}");
            if output.target_name.is_empty() {
                self.error(&path, "the batch_output has no target_name");
            }
            for (place, target) in output.target_name.iter().enumerate() {
                if !config.output.iter().any(|output| output.name == *target) {
                    let message =
                        format!("the batch_output is for '{target}', which is no output of the model");
                    self.error(&format!("{path}.target_name.{place}"), message);
                }
            }
            if output.source_input.len() != 1 {
                let message =
                    format!("the batch_output has {} source_input; it needs 1", output.source_input.len());
                self.error(&format!("{path}.source_input"), message);
            }
            self.sources(&path, &output.source_input);
        }
    }

    fn sources(&mut self, path: &str, sources: &[String]) {
        for (place, source) in sources.iter().enumerate() {
            if !self.config.input.iter().any(|input| input.name == *source) {
                let message = format!("source_input '{source}' is no input of the model");
                self.error(&format!("{path}.source_input.{place}"), message);
            }
        }
    }
}
