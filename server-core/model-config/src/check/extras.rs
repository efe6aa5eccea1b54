//! The response cache, warm-up and metric options.

use trireme_protocol::DataType;
use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_protocol::proto::model_metrics::metric_control::MetricOptions;
use trireme_protocol::proto::model_warmup::input::InputDataType;

use super::{Checker, is_decoupled, stays_inside};

impl Checker<'_> {
    pub(super) fn response_cache(&mut self) {
        let config = self.config;
        if !config.response_cache.as_ref().is_some_and(|cache| cache.enable) {
            return;
        }
        if is_decoupled(config) {
            let message =
                "response_cache cannot be used with a decoupled model: a request has any number of answers";
            self.error("response_cache", message);
        }
        if matches!(config.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_))) {
            let message =
                "response_cache cannot be used with sequence_batching: an answer depends on those before";
            self.error("response_cache", message);
        }
    }

    pub(super) fn warmup(&mut self) {
        let config = self.config;
        for (number, sample) in config.model_warmup.iter().enumerate() {
            let path = format!("model_warmup.{number}");
            let name = &sample.name;
            if name.is_empty() {
                self.error(&path, "the warm-up sample has no name");
            }
            let most = u32::try_from(config.max_batch_size).unwrap_or(0).max(1);
            if sample.batch_size > most {
                let message = format!(
                    "warm-up sample '{name}' has batch_size {}; at most {most} fit",
                    sample.batch_size
                );
                self.error(&format!("{path}.batch_size"), message);
            }
            for (input, data) in &sample.inputs {
                let path = format!("{path}.inputs.{input}");
                if !config.input.iter().any(|other| other.name == *input) {
                    let message =
                        format!("warm-up sample '{name}' has '{input}', which is no input of the model");
                    self.error(&path, message);
                }
                if DataType::from_proto(data.data_type).is_none() {
                    self.error(&path, format!("input '{input}' of warm-up sample '{name}' has no data_type"));
                }
                if data.dims.iter().any(|dim| *dim < 1) {
                    let message =
                        format!("input '{input}' of warm-up sample '{name}' has a dimension below 1");
                    self.error(&format!("{path}.dims"), message);
                }
                match &data.input_data_type {
                    None => {
                        let message = format!(
                            "input '{input}' of warm-up sample '{name}' has none of zero_data, random_data and input_data_file"
                        );
                        self.error(&path, message);
                    }
                    Some(InputDataType::InputDataFile(file)) if !stays_inside(file) => {
                        let message = format!("input_data_file '{file}' leaves the directory warmup");
                        self.error(&format!("{path}.input_data_file"), message);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    pub(super) fn metrics(&mut self) {
        let controls = self.config.model_metrics.iter().flat_map(|metrics| &metrics.metric_control);
        for (number, control) in controls.enumerate() {
            let path = format!("model_metrics.metric_control.{number}");
            if control.metric_identifier.as_ref().is_none_or(|identifier| identifier.family.is_empty()) {
                self.error(&path, "the metric_control names no family")
                    .help("add `metric_identifier { family: \"…\" }`");
            }
            if let Some(MetricOptions::HistogramOptions(options)) = &control.metric_options {
                let rising = options.buckets.windows(2).all(|pair| pair[0] < pair[1]);
                if options.buckets.is_empty() {
                    self.error(&format!("{path}.histogram_options"), "the histogram has no buckets");
                } else if !rising {
                    let message = "the buckets of the histogram do not rise from each to the next";
                    self.error(&format!("{path}.histogram_options.buckets"), message);
                }
            }
        }
    }
}
